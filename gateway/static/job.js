// One picture: its row, its state in words, its bands as they come, and what became of it.

import { describe } from "./backend.js";
import { Compare } from "./compare.js";
import { Refused, send, toBlob } from "./stream.js";
import { bytes, count, number, seconds, ticking } from "./words.js";

const CANVAS_MAX_SIDE = 2048; // bands are previews: the file itself has every pixel
const NEWS = ["done", "failed", "stopped", "refused"]; // states that are told aloud; progress is not

export class Job {
  /** `owner` has say(text), changed(job), remove(job) and backend. */
  constructor(file, owner) {
    Object.assign(this, { file, owner, header: null, result: null, state: "checking" });
    this.element = document.getElementById("job").content.firstElementChild.cloneNode(true);
    this.find(".job-name").textContent = file.name;
    const act = (selector, does) => this.find(selector).addEventListener("click", does);
    act(".job-stop", () => this.stop.abort(new Error("stopped")));
    act(".job-retry", () => this.owner.retry(this));
    act(".job-remove", () => this.owner.remove(this));
    act(".job-show", () => this.open(!this.isOpen));
    this.find(".job-remove").setAttribute("aria-label", `Remove ${file.name}`);
    for (const [selector, verb] of [[".job-stop", "Stop"], [".job-show", "Show"]]) {
      this.find(selector).setAttribute("aria-label", `${verb} ${file.name}`);
    }
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  /** Show what is known of the upload; a fault in words ends it here. */
  checked(header, fault) {
    this.header = header;
    this.url = fault ? null : URL.createObjectURL(this.file);
    this.saySize();
    const thumb = this.find(".job-thumb");
    thumb.addEventListener("load", () => this.turn(thumb.naturalWidth, thumb.naturalHeight));
    if (this.url) thumb.src = this.url;
    this.become(fault ? "refused" : "ready", fault || "Ready.");
  }

  /** Say how large it is, and once it is finished what it became. */
  saySize() {
    const { header: { type, width, height }, result } = this;
    const words = [];
    if (width) words.push(`${number(width)} × ${number(height)}`);
    if (this.isLarger) words.push(`became ${number(result.width)} × ${number(result.height)}`);
    const kind = result || !width ? "" : `${type}, `;
    const size = words.length ? `${words.join(" ")} pixels, ` : "";
    this.find(".job-size").textContent = kind + size + bytes(result ? result.bytes : this.file.size);
  }

  get isLarger() {
    return Boolean(this.result) && this.result.width !== this.header.width;
  }

  /** Take the size that the browser found: it turns a photograph as its camera noted, as the gateway does. */
  turn(width, height) {
    const { header } = this;
    if (header.width && !(width === header.height && height === header.width)) return;
    Object.assign(header, { width, height });
    this.saySize();
  }

  become(state, words) {
    const isNew = state !== this.state;
    const hadFocus = this.find(".job-actions").contains(document.activeElement);
    this.state = state;
    this.element.dataset.state = state;
    if (hadFocus && !document.activeElement.offsetWidth) this.find(".job-name").focus(); // its button has gone
    this.find(".job-state").textContent = words;
    const [again, how] = state === "done" ? ["Again", "with what is chosen below"] : ["Try again", ""];
    this.find(".job-retry").textContent = again;
    this.find(".job-retry").setAttribute("aria-label", `${again} ${this.file.name} ${how}`.trim());
    if (isNew && (NEWS.includes(state) || state === "booting" || state === "working")) this.owner.say(`${this.file.name}: ${words}`);
    if (isNew) this.owner.changed(this);
  }

  get isWaiting() {
    return this.state === "ready";
  }

  /** Send it with the form's other fields and follow it to its end. Resolves to the problem it failed with, or null. */
  async run(url, fields) {
    this.began = performance.now();
    this.stop = new AbortController();
    this.progress(null);
    this.showNotes([]);
    this.forget();
    this.boot = null;
    this.line = "";
    this.become("sending", `Sending ${bytes(this.file.size)}.`);
    this.clock = setInterval(() => this.tick(), 1000);
    try {
      fields.set("image", this.file, this.file.name);
      for await (const { name, data } of send(url, fields, this.stop)) await this.take(name, data);
      if (!this.result) throw new TypeError("the stream ended early");
      return null;
    } catch (error) {
      return this.fail(error);
    } finally {
      clearInterval(this.clock);
      this.ticks = null;
    }
  }

  take(name, data) {
    switch (name) {
      case "state": return this.follow(data);
      case "queue": return this.queue(data);
      case "progress": return this.work(data);
      case "band": return this.paint(data);
      case "result": return this.finish(data);
      case "problem": throw new Refused(data);
      default: return undefined; // an event of a later version
    }
  }

  follow({ state, elapsed_s: elapsed, usual_s: times }) {
    this.owner.backend.show(state, elapsed, times);
    if (state === "up" && this.state === "working") return;
    const heard = performance.now();
    const now = () => (elapsed === null ? null : elapsed + (performance.now() - heard) / 1000);
    this.boot = state === "up" ? null : () => describe(state, now(), times).long;
    const part = state === "booting" && times ? Math.min(0.97, elapsed / times.p90) : null;
    this.expect({ up: "waiting", failed: this.state }[state] ?? "booting", part);
  }

  queue({ place, ahead }) {
    if (!place) this.line = "";
    else this.line = ahead ? `In the queue: ${count(ahead, "picture is", "pictures are")} ahead of yours.` : "In the queue: yours is next.";
    this.expect(this.boot ? this.state : "waiting", null);
  }

  /** Say what is waited for: the boot, a place, both, or the first band. */
  expect(state, part) {
    const since = performance.now();
    const work = () => `The machine works on your picture, ${ticking((performance.now() - since) / 1000)} so far.`;
    this.ticks = () => [this.boot?.(), this.line].filter(Boolean).join(" ") || work();
    this.progress(part);
    this.become(state, this.ticks());
  }

  work({ bands_done: done, bands, elapsed_s: elapsed, left_s: left }) {
    const heard = performance.now();
    this.ticks = () => {
      const more = (performance.now() - heard) / 1000;
      const rest = left === null ? "" : left - more > 0.5 ? `, about ${ticking(Math.ceil(left - more))} left` : ", nearly there";
      return `Band ${done} of ${bands} is done, ${ticking(elapsed + more)} so far${rest}.`;
    };
    this.progress(done / bands);
    this.become("working", this.ticks());
  }

  tick() {
    if (!this.ticks || !["booting", "waiting", "working"].includes(this.state)) return;
    this.find(".job-state").textContent = this.ticks();
  }

  progress(part) {
    const bar = this.find(".job-progress");
    if (part === null) bar.removeAttribute("value");
    else bar.value = part;
  }

  /** Paint a band where it belongs, on the upload itself, enlarged. */
  async paint({ top, rows, width, height, media_type: type, data }) {
    const stage = this.growing(width, height);
    const bitmap = await createImageBitmap(await toBlob(data, type));
    const { canvas, scale } = stage;
    const [from, to] = [Math.floor(top * scale), Math.ceil((top + rows) * scale)];
    canvas.getContext("2d").drawImage(bitmap, 0, from, canvas.width, to - from);
    bitmap.close();
    stage.element.style.setProperty("--done", `${(100 * (top + rows)) / height}%`);
    stage.element.dataset.rows = top + rows;
  }

  growing(width, height) {
    if (this.stage?.width === width && this.stage.height === height) return this.stage;
    const element = document.getElementById("growing").content.firstElementChild.cloneNode(true);
    const canvas = element.querySelector("canvas");
    const scale = Math.min(1, CANVAS_MAX_SIDE / Math.max(width, height));
    Object.assign(canvas, { width: Math.round(width * scale), height: Math.round(height * scale) });
    element.style.setProperty("--width", width);
    element.style.setProperty("--height", height);
    element.querySelector("img").src = this.url;
    this.find(".job-stage").replaceChildren(element);
    this.stage = { element, canvas, scale, width, height };
    return this.stage;
  }

  /** Show the place where the bands will come, before the first. */
  prepare(scale) {
    if (this.header.width) this.growing(this.header.width * scale, this.header.height * scale);
  }

  async finish(result) {
    const blob = await toBlob(result.data, result.media_type);
    delete result.data;
    this.result = result;
    this.resultUrl = URL.createObjectURL(blob);
    const save = this.find(".job-save");
    Object.assign(save, { href: this.resultUrl, download: result.filename });
    save.setAttribute("aria-label", `Download ${result.filename}`);
    this.saySize();
    this.showNotes([...result.notes, ...checks(result.checks, this.isLarger)]);
    this.progress(1);
    const isKept = result.cache === "hit";
    this.become("done", isKept ? `Done at once: ${result.variant} made it before, and it was kept.` : `Done in ${seconds(result.seconds)}, by ${result.variant}.`);
    this.open(this.owner.mayOpen(this));
  }

  showNotes(notes) {
    this.find(".job-notes").replaceChildren(...notes.map((note) => Object.assign(document.createElement("li"), { textContent: note })));
  }

  fail(error) {
    this.closeStage();
    if (this.stop.signal.aborted && this.stop.signal.reason?.message === "stopped") {
      this.become("stopped", `Stopped after ${ticking((performance.now() - this.began) / 1000)}.`);
      return { isStop: true };
    }
    if (error instanceof Refused) {
      const { title, detail, request_id: id, retry_after_s: wait } = error.problem;
      this.become("failed", `${title}. ${detail}`);
      this.showNotes([...(wait ? [`It may work again in ${ticking(wait)}.`] : []), ...(id ? [`Request ${id}: whoever runs this service finds it in the log.`] : [])]);
      return error.problem;
    }
    const offline = navigator.onLine === false ? " You seem to be offline." : "";
    this.become("failed", `The connection broke before the picture was there.${offline} Try again: nothing was kept.`);
    return { isBroken: true };
  }

  /** Let go of what was made before. */
  forget() {
    this.closeStage();
    if (this.resultUrl) URL.revokeObjectURL(this.resultUrl);
    this.resultUrl = this.result = null;
  }

  get isOpen() {
    return Boolean(this.compare);
  }

  /** Open or close the before and after of a finished picture. */
  open(isWanted) {
    this.closeStage();
    if (isWanted) {
      this.compare = new Compare({ before: this.url, after: this.resultUrl }, this.result.width, this.result.height);
      this.find(".job-stage").replaceChildren(this.compare.element);
    }
    const show = this.find(".job-show");
    show.textContent = isWanted ? "Hide" : "Show";
    show.setAttribute("aria-label", `${show.textContent} before and after of ${this.file.name}`);
    show.setAttribute("aria-expanded", isWanted);
  }

  closeStage() {
    this.compare?.close();
    this.compare = null;
    this.stage = null;
    this.find(".job-stage").replaceChildren();
  }

  /** Stop what runs and free what is held. */
  close() {
    this.stop?.abort(new Error("stopped"));
    this.forget();
    if (this.url) URL.revokeObjectURL(this.url);
  }
}

/** Say what was checked of an answer, for people. */
function checks(checked, isLarger) {
  if (!checked) return [];
  const tiles = checked.tiles ? `${count(checked.tiles, "tile", "tiles")} checked: every number is finite` : "Every number was checked and is finite";
  const rerun = checked.reruns ? `, ${count(checked.reruns, "tile was", "tiles were")} computed again in full precision` : "";
  // Of the same size it would praise a variant that changes nothing: noise is there to be taken away.
  const back = isLarger && Number.isFinite(checked.back_db) ? `. Shrunk back, the result matches your upload at ${checked.back_db.toFixed(1)} dB` : "";
  return [`${tiles}${rerun}${back}.`];
}
