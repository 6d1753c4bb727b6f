// Chooses a part of an image that is too large, with the image's proportions: by pointer, by click and by keyboard.

import { t } from "./text.js";

const MOVE_FRACTION = 0.02; // of the image, per key press
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

export class Crop {
  /** `size` is the image's, `most` the largest part that the server takes. `done` gets the part, or null. */
  constructor(url, size, most, done) {
    Object.assign(this, { size, most });
    this.element = document.getElementById("crop").content.firstElementChild.cloneNode(true);
    this.view = this.element.querySelector(".crop-view");
    this.box = this.element.querySelector(".crop-box");
    this.range = Object.assign(document.createElement("input"), { type: "range", min: 5, max: 100, value: 100 });
    this.element.querySelector(".crop-size").append(this.range);
    this.element.querySelector("img").src = url;
    this.view.style.setProperty("--width", size.width);
    this.view.style.setProperty("--height", size.height);
    this.centre = { x: 0.5, y: 0.5 };
    this.range.addEventListener("input", () => this.draw());
    this.box.addEventListener("keydown", (event) => this.onKey(event));
    this.view.addEventListener("pointerdown", (event) => {
      this.view.setPointerCapture(event.pointerId);
      this.grip = event.target === this.box ? this.offset(event) : { x: 0, y: 0 };
      this.follow(event);
    });
    this.view.addEventListener("pointermove", (event) => this.view.hasPointerCapture(event.pointerId) && this.follow(event));
    this.element.querySelector(".crop-use").addEventListener("click", () => done(this.part));
    this.element.querySelector(".crop-cancel").addEventListener("click", () => done(null));
    this.draw();
  }

  /** The part to keep, in pixels of the image. */
  get part() {
    const { width: fullWidth, height: fullHeight } = this.size;
    const share = this.range.value / 100;
    const width = Math.max(1, Math.floor(this.most.width * share));
    const height = Math.max(1, Math.floor(this.most.height * share));
    const x = Math.round(clamp(this.centre.x * fullWidth - width / 2, 0, fullWidth - width));
    const y = Math.round(clamp(this.centre.y * fullHeight - height / 2, 0, fullHeight - height));
    return { x, y, width, height };
  }

  at(event) {
    const box = this.view.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  }

  /** Where the pointer took the box, relative to its centre. */
  offset(event) {
    const { x, y } = this.at(event);
    return { x: x - this.centre.x, y: y - this.centre.y };
  }

  follow(event) {
    const { x, y } = this.at(event);
    this.centre = { x: x - this.grip.x, y: y - this.grip.y };
    this.draw();
  }

  onKey(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const sizes = { "+": 5, "=": 5, "-": -5 };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (moves[event.key]) {
      const [x, y] = moves[event.key];
      this.centre = { x: this.centre.x + x * MOVE_FRACTION, y: this.centre.y + y * MOVE_FRACTION };
    } else if (sizes[event.key]) {
      this.range.value = Number(this.range.value) + sizes[event.key];
    } else return;
    event.preventDefault();
    this.draw();
  }

  draw() {
    const { x, y, width, height } = this.part;
    const { width: fullWidth, height: fullHeight } = this.size;
    this.centre = { x: (x + width / 2) / fullWidth, y: (y + height / 2) / fullHeight };
    const percent = (value, full) => `${(100 * value) / full}%`;
    Object.assign(this.box.style, {
      left: percent(x, fullWidth), top: percent(y, fullHeight), width: percent(width, fullWidth), height: percent(height, fullHeight),
    });
    this.element.querySelector(".crop-facts").textContent = t("crop.facts", { width, height, fullWidth, fullHeight });
  }
}
