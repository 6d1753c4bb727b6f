// The backend's state in words: asked of the gateway, which knows it without asking the backend (asking is waking).

import { seconds, ticking } from "./words.js";

const LOOK_WHILE_BOOTING_MS = 2_000;
const LOOK_AT_REST_MS = 30_000;
const WAKE_AGAIN_MS = 90_000; // well within what `wake_rate` allows

export const usual = (times) => (times ? `usually ${seconds(times.p50)}` : "some 10 to 15 s");

/** Return what a state means for whoever waits: short, for the line above the page, and long, for a picture. */
export function describe(state, elapsed, times) {
  const soFar = elapsed === null ? "" : `${ticking(elapsed)} so far, `;
  switch (state) {
    case "asleep":
      return { short: "Asleep", long: `The machine is asleep: the first picture ${times ? `usually takes ${seconds(times.p50)} more` : "takes some 10 to 15 s more"}.` };
    case "booting": {
      const late = times && elapsed > times.p90;
      const than = late ? `longer than usual (9 of 10 times within ${seconds(times.p90)})` : usual(times);
      return { short: "Waking", long: `The machine is waking: ${soFar}${than}.` };
    }
    case "up":
      return { short: "Awake", long: "The machine is awake: pictures begin at once." };
    case "failed":
      return { short: "Not well", long: "The machine did not start. The next picture tries again." };
    default:
      return null;
  }
}

/** Watches the state and shows it in two places: a word at the top, a sentence beside the button. */
export class Backend {
  constructor({ badge, sentence, statusUrl, wakeUrl }) {
    Object.assign(this, { badge, sentence, statusUrl, wakeUrl });
    this.times = null;
    document.addEventListener("visibilitychange", () => document.hidden || this.look());
    this.look();
  }

  /** Ask for the state; the gateway answers from what it has seen, and nothing wakes. */
  async look() {
    clearTimeout(this.timer);
    let state;
    try {
      const response = await fetch(this.statusUrl, { headers: { Accept: "application/json" } });
      const { backend } = await response.json();
      state = backend.state;
      this.show(state, backend.since_s ?? null, backend.usual_boot_s ?? null);
    } catch {
      return; // the page works without: the sentence that came with it stays
    }
    if (!document.hidden) this.timer = setTimeout(() => this.look(), state === "booting" ? LOOK_WHILE_BOOTING_MS : LOOK_AT_REST_MS);
  }

  /** Boot now, behind the choosing and the upload: called when somebody chose a picture, never on a mere view. */
  async wake() {
    if (this.wokenAt && performance.now() - this.wokenAt < WAKE_AGAIN_MS) return;
    this.wokenAt = performance.now();
    await fetch(this.wakeUrl, { method: "POST" }).catch(() => null);
    this.look();
  }

  /** Show a state, however it became known. */
  show(state, elapsed, times) {
    this.times = times ?? this.times;
    const words = describe(state, elapsed, this.times);
    if (!words) return;
    this.badge.hidden = false;
    this.badge.dataset.state = state;
    this.badge.textContent = words.short;
    this.sentence.textContent = words.long;
  }
}
