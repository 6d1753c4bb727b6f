// What a running image does, in words and as a bar: its transfers, the boot, the queue and its bands.

import { describe } from "./backend.js";
import { bytes, share, ticking } from "./format.js";
import { t } from "./text.js";

const TICKING = ["booting", "waiting", "working"];

export class Progress {
  /** `job` has find(selector), setState(state, text) and state; `backend` shows what the events say of it. */
  constructor(job, backend) {
    Object.assign(this, { job, backend });
  }

  begin() {
    this.setBar(null);
    this.boot = null;
    this.line = "";
    this.ticks = null;
    this.clock = setInterval(() => this.tick(), 1000);
  }

  end() {
    clearInterval(this.clock);
    this.ticks = null;
  }

  /** Show how much of the upload was sent. What the system's buffers hold counts as sent. */
  showSent(sent, total) {
    if (this.job.state !== "sending") return;
    const isSent = sent >= total;
    this.setBar(isSent ? null : sent / total);
    this.job.setState("sending", isSent ? t("wait.sent") : t("wait.sending_part", share(sent, total)));
  }

  /** Show how much of a file has arrived; `isBroken` while the page waits to continue after an interruption. */
  showReceived(received, total, isBroken = false) {
    const [key, values] = total ? [isBroken ? "wait.broken" : "wait.receiving_part", share(received, total)] : ["wait.receiving", { size: bytes(received) }];
    this.setBar(total ? received / total : null);
    this.job.setState("receiving", t(key, values));
  }

  showBackendState({ state, elapsed_s: elapsed, usual_s: times, reason }) {
    this.backend.show(state, elapsed, times, reason);
    if (state === "up" && this.job.state === "working") return;
    const receivedAt = performance.now();
    const now = () => (elapsed === null ? null : elapsed + (performance.now() - receivedAt) / 1000);
    this.boot = state === "up" ? null : () => describe(state, now(), times, reason).long;
    const part = state === "booting" && times ? Math.min(0.97, elapsed / times.p90) : null;
    this.showWait({ up: "waiting", failed: this.job.state }[state] ?? "booting", part);
  }

  showPosition({ position, ahead }) {
    if (!position) this.line = "";
    else this.line = ahead ? t("wait.ahead", { count: ahead }) : t("wait.next");
    this.showWait(this.boot ? this.job.state : "waiting", null);
  }

  /** Show what the job waits for: the boot, the queue, both, or the first band. */
  showWait(state, part) {
    const since = performance.now();
    const firstBand = () => t("wait.first_band", { time: ticking((performance.now() - since) / 1000) });
    this.ticks = () => [this.boot?.(), this.line].filter(Boolean).join(" ") || firstBand();
    this.setBar(part);
    this.job.setState(state, this.ticks());
  }

  showBands({ bands_done: done, bands, elapsed_s: elapsed, left_s: left }) {
    const receivedAt = performance.now();
    this.ticks = () => {
      const more = (performance.now() - receivedAt) / 1000;
      const values = { done, bands, time: ticking(elapsed + more) };
      if (left === null || left - more <= 0.5) return t("wait.bands", values);
      return t("wait.bands_left", { ...values, left: ticking(Math.ceil(left - more)) });
    };
    this.setBar(done / bands);
    this.job.setState("working", this.ticks());
  }

  tick() {
    if (this.ticks && TICKING.includes(this.job.state)) this.job.find(".job-state").textContent = this.ticks();
  }

  /** Show a part from 0 to 1; null if it is unknown. */
  setBar(part) {
    const bar = this.job.find(".job-progress");
    if (part === null) bar.removeAttribute("value");
    else bar.value = part;
  }
}
