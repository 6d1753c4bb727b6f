// Shows the backend's state. The gateway reports it without contacting the backend, so polling does not wake it.

import { day, seconds, shortDay, ticking } from "./format.js";
import { language, t } from "./text.js";

const POLL_BOOTING_MS = 2_000;
const POLL_IDLE_MS = 30_000;
const WAKE_INTERVAL_MS = 90_000; // stays well below `wake_rate`

const FIRST_BOOT_S = 15; // the usual maximum until a boot was measured

/** Return the server's own reason, which is in English. */
const translated = (reason) => (reason && language !== "en" ? t("server.reason") : reason);

/** Return the texts for a state: `short` for the badge at the top, `long` for a job and for the line next to the button. */
export function describe(state, elapsed, times, reason = null) {
  switch (state) {
    case "asleep":
      return { short: t("server.asleep"), long: times ? t("server.asleep_text", { time: seconds(times.p50) }) : t("server.asleep_unknown") };
    case "booting": {
      const late = elapsed > (times ? times.p90 : FIRST_BOOT_S);
      const parts = elapsed === null ? [] : [t("server.so_far", { time: ticking(elapsed) })];
      if (late) parts.push(times ? t("server.late", { time: seconds(times.p90) }) : t("server.late_unknown"));
      else parts.push(times ? t("server.usual", { time: seconds(times.p50) }) : t("server.usual_unknown"));
      const starting = t("server.booting_text", { parts: parts.join(", ") });
      return { short: t("server.booting"), long: reason ? `${translated(reason)} ${starting}` : starting };
    }
    case "up":
      return { short: t("server.up"), long: t("server.up_text") };
    case "failed":
      if (!reason) return { short: t("server.not_started"), long: t("server.not_started_text") };
      return { short: t("server.failed"), long: t("server.failed_text", { reason: translated(reason) }) };
    default:
      return null;
  }
}

/** Return the texts for a month whose GPU budget is used up; `name` is the month, such as "2026-11". */
export function describeSpent(name) {
  const [year, month] = name.split("-").map(Number);
  const next = new Date(Date.UTC(year, month, 1)); // months count from 0
  return { short: t("server.spent", { day: shortDay(next) }), long: t("server.spent_text", { day: day(next) }) };
}

/** Polls the state and shows it in the badge at the top and in the sentence next to the button. */
export class Backend {
  /** `changed` is called whenever the texts change. */
  constructor({ badge, sentence, statusUrl, wakeUrl, changed }) {
    Object.assign(this, { badge, sentence, statusUrl, wakeUrl, changed });
    this.times = null;
    this.spentMonth = null; // the name of this month if its budget is used up
    document.addEventListener("visibilitychange", () => document.hidden || this.poll());
    this.poll();
  }

  /** Fetch and show the state. Wakes nothing. */
  async poll() {
    clearTimeout(this.timer);
    let state;
    try {
      const response = await fetch(this.statusUrl, { headers: { Accept: "application/json" } });
      const { backend, month, estimate } = await response.json();
      this.estimate = estimate ?? null;
      this.spentMonth = month?.is_spent ? month.name : null;
      state = backend.state;
      this.show(state, backend.since_s ?? null, backend.usual_boot_s ?? null, backend.reason);
    } catch {
      return; // the page works without it and keeps its initial sentence
    }
    if (!document.hidden) this.timer = setTimeout(() => this.poll(), state === "booting" ? POLL_BOOTING_MS : POLL_IDLE_MS);
  }

  /** Return about how long an upload of so many pixels takes, for the slowest of these variants; "" if nobody knows. */
  estimateWait(pixels, variants) {
    const paces = variants.map((name) => this.estimate?.s_per_megapixel[name]).filter(Number.isFinite);
    if (!paces.length || !["up", "asleep", "booting"].includes(this.state)) return "";
    const boot = this.state === "up" ? 0 : this.times?.p50;
    if (boot === undefined) return "";
    const total = (Math.max(...paces) * pixels) / 1e6 + this.estimate.queue_s + boot;
    const time = seconds(Math.max(1, Math.round(total)));
    return boot ? t("server.estimate_boot", { time, boot: seconds(boot) }) : t("server.estimate", { time });
  }

  /** Start the backend while the user chooses and uploads. Called when an image was chosen, never on a page view. */
  async wake() {
    if (this.wokenAt && performance.now() - this.wokenAt < WAKE_INTERVAL_MS) return;
    this.wokenAt = performance.now();
    await fetch(this.wakeUrl, { method: "POST" }).catch(() => null);
    this.poll();
  }

  /** Show a state, whether polled or from an event stream. */
  show(state, elapsed, times, reason) {
    this.times = times ?? this.times;
    const texts = this.spentMonth ? describeSpent(this.spentMonth) : describe(state, elapsed, this.times, reason);
    if (!texts) return;
    this.state = this.spentMonth ? "spent" : state;
    this.badge.hidden = false;
    this.badge.dataset.state = this.state;
    this.badge.textContent = texts.short;
    this.sentence.textContent = texts.long;
    this.changed();
  }
}
