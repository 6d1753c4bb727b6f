// Before/after view: a divider, zoom and a lens, each by mouse, touch and keyboard.
// Dragging is never needed: a click sets the divider, buttons zoom and move (WCAG 2.5.7).

import { t } from "./text.js";

const MAX_ZOOM = 16; // CSS pixels per pixel of the result
const STEP = 1.5;
const LENS_SCALE = 3; // relative to the view
const PAN_FRACTION = 0.25; // of the view, per key press
const CLICK_PX = 5;

const clamp = (value, low, high) => Math.min(Math.max(value, low), Math.max(low, high));

export class Compare {
  /** `urls` is {before, after}; `width` and `height` are those of the result. */
  constructor(urls, width, height) {
    Object.assign(this, { width, height });
    this.element = document.getElementById("compare").content.firstElementChild.cloneNode(true);
    this.view = this.find(".compare-view");
    this.planes = [...this.element.querySelectorAll(".plane")];
    this.lens = this.find(".lens");
    this.divider = this.makeDivider();
    this.zoom = null; // null: the whole image fits the view; otherwise CSS pixels per pixel of the result
    this.centre = { x: 0.5, y: 0.5 }; // centre of the view, as fractions of the image
    this.glass = { x: 0.5, y: 0.5 };
    this.pointers = new Map();
    this.element.style.setProperty("--width", width);
    this.element.style.setProperty("--height", height);
    this.find(".pane-before .plane").src = urls.before;
    this.find(".pane-after .plane").src = urls.after;
    this.find(".lens-before").style.backgroundImage = `url("${urls.before}")`;
    this.find(".lens-after").style.backgroundImage = `url("${urls.after}")`;
    this.listen();
    this.size = new ResizeObserver(() => this.draw());
    this.size.observe(this.view);
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  makeDivider() {
    const divider = document.createElement("input");
    Object.assign(divider, { type: "range", min: 0, max: 100, step: 1, value: 50, className: "divider" });
    divider.setAttribute("aria-label", t("compare.divider"));
    divider.addEventListener("input", () => this.divide(Number(divider.value) / 100));
    this.view.append(divider);
    return divider;
  }

  listen() {
    const click = (selector, act) => this.find(selector).addEventListener("click", act);
    click(".zoom-in", () => this.zoomTo(this.scale * STEP));
    click(".zoom-out", () => this.zoomTo(this.scale / STEP));
    click(".zoom-fit", () => this.zoomTo(null));
    click(".zoom-true", () => this.zoomTo(1));
    click(".lens-switch", () => this.switchLens());
    for (const button of this.element.querySelectorAll(".pan")) {
      button.addEventListener("click", () => this.pan(-button.dataset.x * PAN_FRACTION, -button.dataset.y * PAN_FRACTION));
    }
    this.view.addEventListener("keydown", (event) => this.onKey(event));
    this.view.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    this.view.addEventListener("dblclick", (event) => this.zoomTo(this.zoom === null ? Math.max(2, this.scale * 3) : null, this.at(event)));
    this.view.addEventListener("pointerdown", (event) => this.onDown(event));
    this.view.addEventListener("pointermove", (event) => this.onMove(event));
    for (const kind of ["pointerup", "pointercancel"]) this.view.addEventListener(kind, (event) => this.onUp(event));
  }

  /** CSS pixels per pixel of the result when the whole image is shown. */
  get fit() {
    return this.view.clientWidth / this.width;
  }

  get scale() {
    return this.zoom ?? this.fit;
  }

  /** Position of a pointer on the image, as fractions of its sides. */
  at(event) {
    const box = this.view.getBoundingClientRect();
    const part = (offset, side, centre, length) => clamp(centre + (offset - side / 2) / (length * this.scale), 0, 1);
    return {
      x: part(event.clientX - box.left, box.width, this.centre.x, this.width),
      y: part(event.clientY - box.top, box.height, this.centre.y, this.height),
    };
  }

  divide(part) {
    this.view.style.setProperty("--at", `${100 * clamp(part, 0, 1)}%`);
    this.divider.value = Math.round(100 * clamp(part, 0, 1));
  }

  /** Zoom, keeping the point `at` in place on the screen. */
  zoomTo(zoom, at = this.centre) {
    const before = this.scale;
    const wanted = zoom === null || zoom <= this.fit * 1.01 ? null : Math.min(zoom, Math.max(MAX_ZOOM, this.fit));
    this.zoom = wanted;
    const ratio = before / this.scale;
    this.centre = { x: at.x + (this.centre.x - at.x) * ratio, y: at.y + (this.centre.y - at.y) * ratio };
    this.draw();
  }

  /** Move the view, or the lens if it is on, by fractions of the view. */
  pan(x, y) {
    const across = this.view.clientWidth / (this.width * this.scale);
    const down = this.view.clientHeight / (this.height * this.scale);
    if (!this.lens.hidden) {
      this.glass = { x: clamp(this.glass.x + (x * across) / 4, 0, 1), y: clamp(this.glass.y + (y * down) / 4, 0, 1) };
    } else {
      this.centre = { x: this.centre.x + x * across, y: this.centre.y + y * down };
    }
    this.draw();
  }

  switchLens(isOn = this.lens.hidden) {
    this.lens.hidden = !isOn;
    this.find(".lens-switch").setAttribute("aria-pressed", isOn);
    this.glass = { ...this.centre };
    this.draw();
  }

  onKey(event) {
    if (event.target !== this.view || event.ctrlKey || event.metaKey || event.altKey) return;
    const acts = {
      "+": () => this.zoomTo(this.scale * STEP), "=": () => this.zoomTo(this.scale * STEP), "-": () => this.zoomTo(this.scale / STEP),
      0: () => this.zoomTo(null), 1: () => this.zoomTo(1), l: () => this.switchLens(), L: () => this.switchLens(),
      Escape: () => this.switchLens(false),
    };
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = (this.zoom !== null || !this.lens.hidden) && moves[event.key];
    if (move) this.pan(move[0] * PAN_FRACTION, move[1] * PAN_FRACTION);
    else if (acts[event.key]) acts[event.key]();
    else return;
    event.preventDefault();
  }

  onWheel(event) {
    if (!event.ctrlKey && this.zoom === null) return; // let the page scroll; Ctrl or a pinch zooms
    event.preventDefault();
    this.zoomTo(this.scale * 2 ** (-event.deltaY / (event.ctrlKey ? 120 : 400)), this.at(event));
  }

  onDown(event) {
    if (event.button > 0) return;
    this.view.focus({ preventScroll: true });
    this.view.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const box = this.view.getBoundingClientRect();
    const line = box.left + (box.width * this.divider.value) / 100;
    this.travelled = 0;
    this.holds = this.zoom === null || Math.abs(event.clientX - line) < 24 ? "divider" : "view";
    if (!this.lens.hidden) this.holds = "lens";
    if (this.pointers.size === 2) this.holds = "both";
    this.follow(event);
  }

  onMove(event) {
    if (!this.lens.hidden && this.pointers.size < 2) {
      this.glass = this.at(event);
      this.draw();
    }
    const last = this.pointers.get(event.pointerId);
    if (!last) return;
    const [dx, dy] = [event.clientX - last.x, event.clientY - last.y];
    this.travelled += Math.hypot(dx, dy);
    if (this.holds === "both") this.pinch(event, last);
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (this.holds === "view") this.pan(-dx / this.view.clientWidth, -dy / this.view.clientHeight);
    this.follow(event);
  }

  onUp(event) {
    const wasClick = this.pointers.delete(event.pointerId) && this.holds === "view" && this.travelled < CLICK_PX;
    if (wasClick && event.type === "pointerup") {
      this.holds = "divider";
      this.follow(event);
    }
    this.holds = this.pointers.size ? "view" : "";
  }

  follow(event) {
    if (this.holds !== "divider") return;
    const box = this.view.getBoundingClientRect();
    this.divide((event.clientX - box.left) / box.width);
  }

  pinch(event, last) {
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (!other) return;
    const apart = (point) => Math.hypot(point.x - other.x, point.y - other.y);
    const middle = { clientX: (event.clientX + other.x) / 2, clientY: (event.clientY + other.y) / 2 };
    const ratio = apart({ x: event.clientX, y: event.clientY }) / Math.max(1, apart(last));
    this.zoomTo(this.scale * ratio, this.at(middle));
  }

  draw() {
    const { clientWidth, clientHeight } = this.view;
    if (!clientWidth) return;
    const [across, down] = [this.width * this.scale, this.height * this.scale];
    const halfX = clientWidth / 2 / across;
    const halfY = clientHeight / 2 / down;
    this.centre = { x: clamp(this.centre.x, Math.min(0.5, halfX), 1 - halfX), y: clamp(this.centre.y, Math.min(0.5, halfY), 1 - halfY) };
    if (this.zoom === null) this.centre = { x: 0.5, y: 0.5 };
    const left = clientWidth / 2 - this.centre.x * across;
    const top = clientHeight / 2 - this.centre.y * down;
    for (const plane of this.planes) {
      Object.assign(plane.style, { width: `${across}px`, height: `${down}px`, transform: `translate(${left}px, ${top}px)` });
    }
    this.element.classList.toggle("is-zoomed", this.zoom !== null);
    this.element.classList.toggle("has-lens", !this.lens.hidden);
    this.find(".zoom-level").textContent = `${Math.round(100 * this.scale)}%`;
    this.find(".zoom-fit").setAttribute("aria-pressed", this.zoom === null);
    this.find(".zoom-true").setAttribute("aria-pressed", this.zoom === 1);
    if (!this.lens.hidden) this.drawLens(left, top, across, down);
  }

  /** Draw two circles side by side above the point: the same spot before and after. */
  drawLens(left, top, across, down) {
    const [x, y] = [left + this.glass.x * across, top + this.glass.y * down];
    const { offsetWidth, offsetHeight } = this.lens;
    const above = y - offsetHeight - 28;
    this.lens.style.left = `${this.view.offsetLeft + clamp(x - offsetWidth / 2, 4, this.view.clientWidth - offsetWidth - 4)}px`;
    this.lens.style.top = `${this.view.offsetTop + (above > 4 ? above : Math.max(4, Math.min(y + 28, this.view.clientHeight - offsetHeight - 4)))}px`;
    for (const glass of this.lens.children) {
      const [w, h] = [across * LENS_SCALE, down * LENS_SCALE];
      const [gx, gy] = [glass.clientWidth / 2 - this.glass.x * w, glass.clientHeight / 2 - this.glass.y * h];
      Object.assign(glass.style, { backgroundSize: `${w}px ${h}px`, backgroundPosition: `${gx}px ${gy}px` });
    }
    this.view.style.setProperty("--glass-x", `${x}px`);
    this.view.style.setProperty("--glass-y", `${y}px`);
  }

  /** Disconnect the observer, so that the element can be discarded. */
  close() {
    this.size.disconnect();
  }
}
