// One image: its row in the list, its state, its bands as they arrive, and its result.

import { describeChecks } from "./checks.js";
import { Compare } from "./compare.js";
import { download } from "./download.js";
import { Growing } from "./growing.js";
import { describeKept } from "./kept.js";
import { ProblemError, send, toBlob } from "./stream.js";
import { bytes, number, seconds, ticking, tryAgain } from "./format.js";
import { titleOf } from "./options.js";
import { BootPreview } from "./preview-start.js";
import { Preview } from "./preview.js";
import { Progress } from "./progress.js";
import { percent } from "./strength.js";
import { canCopy, canShare, copyImage, shareImage, takeAlong } from "./take.js";
import { joinUnits, t } from "./text.js";

const RUNNING = ["sending", "booting", "waiting", "working", "receiving"];
const ANNOUNCED = ["booting", "working", "done", "failed", "stopped", "rejected"]; // read aloud by screen readers; progress is not

export class Job {
  /** `owner` has announce(text), changed(job), remove(job) and backend. */
  constructor(file, owner, { isExample }) {
    Object.assign(this, { file, owner, isExample, isSaved: false, header: null, orientation: null, result: null, variant: null, choice: null, kept: null, changes: [], state: "checking" });
    this.progress = new Progress(this, owner.backend);
    this.early = new BootPreview(this);
    this.element = document.getElementById("job").content.firstElementChild.cloneNode(true);
    this.find(".job-name").textContent = file.name;
    this.preview = new Preview(this.find(".job-thumb"), {
      measured: (width, height) => this.orient(width, height),
      changed: (url) => this.stage?.showUpload(url),
    });
    const act = (selector, does) => this.find(selector).addEventListener("click", does);
    act(".job-stop", () => this.stop.abort(new Error("stopped")));
    act(".job-retry", () => this.owner.retry(this));
    act(".job-save", () => this.saved());
    act(".job-copy", () => takeAlong(this, copyImage, t("job.copied")));
    act(".job-share", () => takeAlong(this, shareImage, t("job.shared")));
    act(".job-remove", () => this.owner.remove(this));
    act(".job-show", () => this.open(!this.isOpen));
    act(".job-other", () => this.owner.retry(this, this.choice.alternative));
    for (const act of ["remove", "stop", "show", "copy", "share"]) this.find(`.job-${act}`).setAttribute("aria-label", t(`job.${act}_of`, { name: file.name }));
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  /** Show the upload; an error text rejects it. */
  checked(header, error) {
    this.header = header;
    this.preview.show(error ? null : this.file, header);
    this.showSize();
    this.setState(error ? "rejected" : "ready", error || t("job.ready"));
  }

  /** Use a file that the browser has made from the chosen one; `change` says how. */
  replaceFile(file, header, change) {
    this.file = file;
    this.changes = [change];
    this.showWays([]);
    this.checked(header, "");
    this.showNotes([]);
    this.owner.replaced(this);
  }

  /** Show buttons, as [label, act], or a tool for what the browser can do about a rejected file. */
  showWays(ways, tool = null) {
    const buttons = ways.map(([label, act], index) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: label, className: index ? "button-quiet" : "" });
      button.addEventListener("click", act);
      return button;
    });
    const element = this.find(".job-ways");
    const hadFocus = element.contains(document.activeElement);
    element.replaceChildren(...buttons, ...(tool ? [tool] : []));
    element.hidden = !element.childNodes.length;
    if (hadFocus) (buttons[0] ?? this.find(".job-name")).focus();
  }

  /** Say what upscaling this image will give and take. */
  foretell(text) {
    if (this.isWaiting) this.find(".job-state").textContent = text;
  }

  /** Show what came of a button, without a new state. */
  report(text) {
    this.find(".job-state").textContent = text;
    this.owner.announce(t("job.said", { name: this.file.name, text }));
  }

  /** Show the button that upscales what is ready, with this label, in this row; null hides it. */
  offer(label) {
    const go = this.find(".job-go");
    if (go.contains(document.activeElement) && label === null) this.find(".job-name").focus();
    go.hidden = label === null;
    go.textContent = label ?? "";
  }

  /** The result as a file, with the name of the download. */
  get resultFile() {
    return new File([this.resultBlob], this.result.filename, { type: this.resultBlob.type });
  }

  /** Show the size of the upload and, once it is finished, of the result. */
  showSize() {
    const { header: { type, width, height }, result } = this;
    const words = result || !width ? [] : [type];
    if (this.isLarger) words.push(t("job.pixels_upscaled", { width, height, toWidth: result.width, toHeight: result.height }));
    else if (width) words.push(t("job.pixels", { width, height }));
    this.find(".job-size").textContent = [...words, bytes(result ? result.bytes : this.file.size)].join(", ");
  }

  get isLarger() {
    return Boolean(this.result) && this.result.width !== this.header.width;
  }

  /** Use the browser's size: like the gateway, it rotates a photo by its EXIF orientation. */
  orient(width, height) {
    const { header } = this;
    if (header.width && !(width === header.height && height === header.width)) return;
    const isNews = !header.width;
    Object.assign(header, { width, height });
    this.showSize();
    if (isNews) this.owner.measured();
  }

  setState(state, text) {
    const isNew = state !== this.state;
    const hadFocus = this.find(".job-actions").contains(document.activeElement);
    this.state = state;
    this.element.dataset.state = state;
    this.element.toggleAttribute("data-running", RUNNING.includes(state));
    if (hadFocus && !document.activeElement.offsetWidth) this.find(".job-name").focus(); // the focused button was hidden
    this.find(".job-state").textContent = text;
    const again = state === "done" ? "job.redo" : "job.again";
    this.find(".job-retry").textContent = t(again);
    this.find(".job-retry").setAttribute("aria-label", t(`${again}_of`, { name: this.file.name }));
    if (isNew && ANNOUNCED.includes(state)) this.owner.announce(t("job.said", { name: this.file.name, text }));
    if (isNew) this.owner.changed(this);
  }

  get isWaiting() {
    return this.state === "ready";
  }

  /** Whether closing the page would lose something. */
  get wouldBeLost() {
    return !this.isExample && ((RUNNING.includes(this.state) && !this.kept) || Boolean(this.result && !this.isSaved));
  }

  /** Whether this is a result of an earlier visit whose upload has not arrived. */
  get isUnrestored() {
    return Boolean(this.kept) && !this.result;
  }

  saved() {
    this.isSaved = true;
    this.owner.changed(this);
  }

  /** Upload the image with the form's other fields and follow its events. Resolves to the problem it failed with, or null. */
  async run(url, fields) {
    this.showNotes([]);
    this.discardResult();
    this.showChoice(null);
    return this.follow("sending", t("wait.sending", { size: bytes(this.file.size) }), async () => {
      this.early.start(fields.get("variant"));
      fields.set("image", this.file, this.file.name);
      const sent = (part, whole) => this.progress.showSent((this.file.size * part) / whole, this.file.size);
      for await (const { name, data } of send(url, fields, this.stop, sent)) await this.handle(name, data);
      if (!this.result) throw new TypeError("the stream ended early");
    });
  }

  /** Show a result of an earlier visit of this tab: upload and result are still stored. Resolves as `run` does. */
  async restore() {
    const { name, uploadBytes, header, orientation, changes, isSaved, result, expires } = this.kept;
    Object.assign(this, { header, orientation, changes });
    return this.follow("receiving", t("wait.receiving", { size: bytes(uploadBytes + result.bytes) }), async () => {
      const upload = await this.receive(result.upload_url);
      this.file = new File([upload], name, { type: upload.type });
      this.preview.show(this.file, header);
      if (orientation) await this.preview.turn(orientation);
      this.showChoice(result.choice ?? null);
      await this.finish({ ...result }, expires);
      if (isSaved) this.saved();
    });
  }

  /** Run `act` as the job's work, from a state and its text on. Resolves to the problem it failed with, or null. */
  async follow(state, text, act) {
    this.began = performance.now();
    this.stop = new AbortController();
    this.progress.begin();
    this.setState(state, text);
    try {
      await act();
      return null;
    } catch (error) {
      return this.fail(error);
    } finally {
      this.progress.end();
      this.early.end();
    }
  }

  handle(name, data) {
    switch (name) {
      case "state":
        if (data.state === "up") this.early.stop(); // the first band is near
        return this.progress.showBackendState(data);
      case "queue": return this.progress.showPosition(data);
      case "progress": return this.progress.showBands(data);
      case "receiving": return this.progress.showReceived(data.received, data.total);
      case "orientation": return this.early.drop() ?? this.preview.turn((this.orientation = data));
      case "choice": return this.early.choose(data.variant) ?? this.showChoice(data);
      case "band": return this.early.stop() ?? this.growing(data.width, data.height).paint(data);
      case "result": return this.finish(data);
      case "problem": throw new ProblemError(data);
      default: return undefined; // an event that a later version added
    }
  }

  receive(url) {
    return download(url, { stop: this.stop, progress: (...amount) => this.progress.showReceived(...amount) });
  }

  growing(width, height) {
    if (!this.stage?.fits(width, height)) {
      this.stage = new Growing(this.preview.url, width, height);
      this.find(".job-stage").replaceChildren(this.stage.element);
    }
    return this.stage;
  }

  /** Remember the size of the result, for what is shown before the first band arrives. */
  prepare(size) {
    this.early.planned = size;
  }

  async finish(result, expires = Date.now() + 1_000 * result.expires_s) {
    const { url, media_type: type, data } = result;
    this.resultBlob = url ? await this.receive(url) : await toBlob(data, type);
    delete result.data;
    Object.assign(this, { result, isSaved: false, kept: describeKept(this, result, expires) });
    this.resultUrl = URL.createObjectURL(this.resultFile);
    this.find(".job-copy").hidden = !canCopy();
    this.find(".job-share").hidden = !canShare(this.resultFile);
    const save = this.find(".job-save");
    Object.assign(save, { href: this.resultUrl, download: result.filename });
    save.setAttribute("aria-label", t("job.download_of", { name: result.filename }));
    this.showSize();
    this.showNotes([...result.notes, ...describeChecks(result.checks, this.isLarger)]);
    this.progress.setBar(1);
    const isCached = result.cache === "hit";
    const variant = result.strength < 1 ? t("job.strength", { variant: result.variant, percent: percent(result.strength) }) : result.variant;
    this.setState("done", isCached ? t("job.done_cached", { variant }) : t("job.done", { time: seconds(result.seconds), variant }));
    this.open(this.owner.mayOpen(this));
  }

  showNotes(notes) {
    this.find(".job-notes").replaceChildren(...[...this.changes, ...notes].map((note) => Object.assign(document.createElement("li"), { textContent: joinUnits(note) })));
  }

  /** Show what the image looks like, which variant that means, and the other one to try; null hides it. */
  showChoice(choice) {
    this.choice = choice;
    const other = choice?.alternative;
    this.find(".job-choice").hidden = !choice;
    this.find(".job-choice span").textContent = joinUnits(choice?.sentence ?? "");
    this.find(".job-other").hidden = !other;
    if (!other) return;
    const title = titleOf(other);
    Object.assign(this.find(".job-other"), { textContent: t("job.other", { title }), ariaLabel: t("job.other_of", { title, name: this.file.name }) });
  }

  fail(error) {
    this.closeStage();
    if (this.stop.signal.aborted && this.stop.signal.reason?.message === "stopped") {
      this.setState("stopped", t("job.stopped", { time: ticking((performance.now() - this.began) / 1000) }));
      return { isStop: true };
    }
    if (error instanceof ProblemError) {
      const { title, detail, gone, request_id: id, retry_after_s: wait } = error.problem;
      this.setState("failed", gone ? t("job.gone") : t("job.problem", { title, detail }));
      this.showNotes([...(wait ? [tryAgain(wait)] : []), ...(id ? [t("job.request", { id })] : [])]);
      return error.problem;
    }
    this.setState("failed", t(navigator.onLine === false ? "job.lost_offline" : "job.lost"));
    return { isBroken: true };
  }

  /** Discard the previous result. */
  discardResult() {
    this.closeStage();
    if (this.resultUrl) URL.revokeObjectURL(this.resultUrl);
    this.resultUrl = this.result = this.resultBlob = this.kept = null;
  }

  get isOpen() {
    return Boolean(this.compare);
  }

  /** Open or close the before/after view of a finished image. */
  open(isWanted) {
    this.closeStage();
    if (isWanted) {
      this.compare = new Compare({ before: this.preview.url, after: this.resultUrl }, this.result.width, this.result.height);
      this.find(".job-stage").replaceChildren(this.compare.element);
      if (this.preview.isPlaceholder) this.compare.divide(0);
    }
    const act = isWanted ? "job.hide" : "job.show";
    const show = Object.assign(this.find(".job-show"), { textContent: t(act) });
    show.setAttribute("aria-label", t(`${act}_of`, { name: this.file.name }));
    show.setAttribute("aria-expanded", isWanted);
  }

  closeStage() {
    this.compare?.close();
    this.compare = null;
    this.stage = null;
    this.find(".job-stage").replaceChildren();
  }

  /** Stop the request, delete the stored result, and free the URLs. */
  close() {
    this.stop?.abort(new Error("stopped"));
    const url = (this.result ?? this.kept?.result)?.url;
    if (url) fetch(url, { method: "DELETE", keepalive: true }).catch(() => null); // it expires anyway
    this.discardResult();
    this.preview.show(null);
  }
}
