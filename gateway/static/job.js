// One image: its row in the list, its state, its bands as they arrive, and its result.

import { describe } from "./backend.js";
import { Compare } from "./compare.js";
import { ProblemError, send, toBlob } from "./stream.js";
import { bytes, count, number, seconds, ticking } from "./format.js";
import { percent } from "./strength.js";

const CANVAS_MAX_SIDE = 2048; // bands are previews: the file itself has every pixel
const ANNOUNCED = ["booting", "working", "done", "failed", "stopped", "rejected"]; // read aloud by screen readers; progress is not

export class Job {
  /** `owner` has announce(text), changed(job), remove(job) and backend. */
  constructor(file, owner) {
    Object.assign(this, { file, owner, header: null, result: null, variant: null, choice: null, state: "checking" });
    this.element = document.getElementById("job").content.firstElementChild.cloneNode(true);
    this.find(".job-name").textContent = file.name;
    const act = (selector, does) => this.find(selector).addEventListener("click", does);
    act(".job-stop", () => this.stop.abort(new Error("stopped")));
    act(".job-retry", () => this.owner.retry(this));
    act(".job-remove", () => this.owner.remove(this));
    act(".job-show", () => this.open(!this.isOpen));
    act(".job-other", () => this.owner.retry(this, this.choice.alternative));
    this.find(".job-remove").setAttribute("aria-label", `Remove ${file.name}`);
    for (const [selector, verb] of [[".job-stop", "Stop"], [".job-show", "Show"]]) {
      this.find(selector).setAttribute("aria-label", `${verb} ${file.name}`);
    }
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  /** Show the upload; an error text rejects it. */
  checked(header, error) {
    this.header = header;
    this.url = error ? null : URL.createObjectURL(this.file);
    this.showSize();
    const thumb = this.find(".job-thumb");
    thumb.addEventListener("load", () => this.orient(thumb.naturalWidth, thumb.naturalHeight));
    if (this.url) thumb.src = this.url;
    this.setState(error ? "rejected" : "ready", error || "Ready.");
  }

  /** Show the size of the upload and, once it is finished, of the result. */
  showSize() {
    const { header: { type, width, height }, result } = this;
    const words = [];
    if (width) words.push(`${number(width)} × ${number(height)}`);
    if (this.isLarger) words.push(`upscaled to ${number(result.width)} × ${number(result.height)}`);
    const kind = result || !width ? "" : `${type}, `;
    const size = words.length ? `${words.join(" ")} pixels, ` : "";
    this.find(".job-size").textContent = kind + size + bytes(result ? result.bytes : this.file.size);
  }

  get isLarger() {
    return Boolean(this.result) && this.result.width !== this.header.width;
  }

  /** Use the browser's size: like the gateway, it rotates a photo by its EXIF orientation. */
  orient(width, height) {
    const { header } = this;
    if (header.width && !(width === header.height && height === header.width)) return;
    Object.assign(header, { width, height });
    this.showSize();
  }

  setState(state, text) {
    const isNew = state !== this.state;
    const hadFocus = this.find(".job-actions").contains(document.activeElement);
    this.state = state;
    this.element.dataset.state = state;
    if (hadFocus && !document.activeElement.offsetWidth) this.find(".job-name").focus(); // the focused button was hidden
    this.find(".job-state").textContent = text;
    const [again, how] = state === "done" ? ["Redo", "with the current options"] : ["Try again", ""];
    this.find(".job-retry").textContent = again;
    this.find(".job-retry").setAttribute("aria-label", `${again} ${this.file.name} ${how}`.trim());
    if (isNew && ANNOUNCED.includes(state)) this.owner.announce(`${this.file.name}: ${text}`);
    if (isNew) this.owner.changed(this);
  }

  get isWaiting() {
    return this.state === "ready";
  }

  /** Upload the image with the form's other fields and follow its events. Resolves to the problem it failed with, or null. */
  async run(url, fields) {
    this.began = performance.now();
    this.stop = new AbortController();
    this.setBar(null);
    this.showNotes([]);
    this.discardResult();
    this.showChoice(null);
    this.boot = null;
    this.line = "";
    this.setState("sending", `Uploading ${bytes(this.file.size)}.`);
    this.clock = setInterval(() => this.tick(), 1000);
    try {
      fields.set("image", this.file, this.file.name);
      for await (const { name, data } of send(url, fields, this.stop)) await this.handle(name, data);
      if (!this.result) throw new TypeError("the stream ended early");
      return null;
    } catch (error) {
      return this.fail(error);
    } finally {
      clearInterval(this.clock);
      this.ticks = null;
    }
  }

  handle(name, data) {
    switch (name) {
      case "state": return this.showBackendState(data);
      case "queue": return this.showPosition(data);
      case "progress": return this.showProgress(data);
      case "choice": return this.showChoice(data);
      case "band": return this.paint(data);
      case "result": return this.finish(data);
      case "problem": throw new ProblemError(data);
      default: return undefined; // an event that a later version added
    }
  }

  showBackendState({ state, elapsed_s: elapsed, usual_s: times }) {
    this.owner.backend.show(state, elapsed, times);
    if (state === "up" && this.state === "working") return;
    const receivedAt = performance.now();
    const now = () => (elapsed === null ? null : elapsed + (performance.now() - receivedAt) / 1000);
    this.boot = state === "up" ? null : () => describe(state, now(), times).long;
    const part = state === "booting" && times ? Math.min(0.97, elapsed / times.p90) : null;
    this.showWait({ up: "waiting", failed: this.state }[state] ?? "booting", part);
  }

  showPosition({ position, ahead }) {
    if (!position) this.line = "";
    else this.line = ahead ? `In the queue: ${count(ahead, "image is", "images are")} ahead of yours.` : "In the queue: your image is next.";
    this.showWait(this.boot ? this.state : "waiting", null);
  }

  /** Show what the job waits for: the boot, the queue, both, or the first band. */
  showWait(state, part) {
    const since = performance.now();
    const firstBand = () => `Upscaling your image, ${ticking((performance.now() - since) / 1000)} so far.`;
    this.ticks = () => [this.boot?.(), this.line].filter(Boolean).join(" ") || firstBand();
    this.setBar(part);
    this.setState(state, this.ticks());
  }

  showProgress({ bands_done: done, bands, elapsed_s: elapsed, left_s: left }) {
    const receivedAt = performance.now();
    this.ticks = () => {
      const more = (performance.now() - receivedAt) / 1000;
      const rest = left === null ? "" : left - more > 0.5 ? `, about ${ticking(Math.ceil(left - more))} left` : ", almost done";
      return `${done} of ${bands} bands done, ${ticking(elapsed + more)} so far${rest}.`;
    };
    this.setBar(done / bands);
    this.setState("working", this.ticks());
  }

  tick() {
    if (!this.ticks || !["booting", "waiting", "working"].includes(this.state)) return;
    this.find(".job-state").textContent = this.ticks();
  }

  setBar(part) {
    const bar = this.find(".job-progress");
    if (part === null) bar.removeAttribute("value");
    else bar.value = part;
  }

  /** Paint a band over the resized upload. */
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

  /** Show the resized upload before the first band arrives. */
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
    this.showSize();
    this.showNotes([...result.notes, ...checks(result.checks, this.isLarger)]);
    this.setBar(1);
    const isCached = result.cache === "hit";
    const how = result.strength < 1 ? `${result.variant} at ${percent(result.strength)}` : result.variant;
    this.setState("done", isCached ? `Done at once: ${how} upscaled the same image before.` : `Done in ${seconds(result.seconds)} with ${how}.`);
    this.open(this.owner.mayOpen(this));
  }

  showNotes(notes) {
    this.find(".job-notes").replaceChildren(...notes.map((note) => Object.assign(document.createElement("li"), { textContent: note })));
  }

  /** Show what the image looks like, which variant that means, and the other one to try; null hides it. */
  showChoice(choice) {
    this.choice = choice;
    const other = choice?.alternative;
    this.find(".job-choice").hidden = !choice;
    this.find(".job-choice span").textContent = choice?.sentence ?? "";
    this.find(".job-other").hidden = !other;
    this.find(".job-other").textContent = other ? `Use ${other} instead` : "";
    this.find(".job-other").setAttribute("aria-label", `Use ${other} instead for ${this.file.name}`);
  }

  fail(error) {
    this.closeStage();
    if (this.stop.signal.aborted && this.stop.signal.reason?.message === "stopped") {
      this.setState("stopped", `Stopped after ${ticking((performance.now() - this.began) / 1000)}.`);
      return { isStop: true };
    }
    if (error instanceof ProblemError) {
      const { title, detail, request_id: id, retry_after_s: wait } = error.problem;
      this.setState("failed", `${title}. ${detail}`);
      this.showNotes([...(wait ? [`Try again in ${ticking(wait)}.`] : []), ...(id ? [`Request ${id}: the operator of this service can find it in the log.`] : [])]);
      return error.problem;
    }
    const offline = navigator.onLine === false ? " You seem to be offline." : "";
    this.setState("failed", `The connection was lost before the result arrived.${offline} Try again.`);
    return { isBroken: true };
  }

  /** Discard the previous result. */
  discardResult() {
    this.closeStage();
    if (this.resultUrl) URL.revokeObjectURL(this.resultUrl);
    this.resultUrl = this.result = null;
  }

  get isOpen() {
    return Boolean(this.compare);
  }

  /** Open or close the before/after view of a finished image. */
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

  /** Stop the request and free the URLs. */
  close() {
    this.stop?.abort(new Error("stopped"));
    this.discardResult();
    if (this.url) URL.revokeObjectURL(this.url);
  }
}

/** Return the checks of the output as a sentence. */
function checks(checked, isLarger) {
  if (!checked) return [];
  const tiles = checked.tiles ? `${count(checked.tiles, "tile", "tiles")} checked: all values are finite` : "All values were checked and are finite";
  const rerun = checked.reruns ? `, ${count(checked.reruns, "tile was", "tiles were")} recomputed in full precision` : "";
  // Only for enlarged results: at the same size, a variant that changes nothing would score best.
  const back = isLarger && Number.isFinite(checked.back_db) ? `. Scaled back down, the result matches your upload at ${checked.back_db.toFixed(1)} dB` : "";
  return [`${tiles}${rerun}${back}.`];
}
