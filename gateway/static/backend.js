// Shows the backend's state. The gateway reports it without contacting the backend, so polling does not wake it.

import { seconds, ticking } from "./format.js";

const POLL_BOOTING_MS = 2_000;
const POLL_IDLE_MS = 30_000;
const WAKE_INTERVAL_MS = 90_000; // stays well below `wake_rate`

export const usual = (times) => (times ? `usually ${seconds(times.p50)}` : "10 to 15 s");

/** Return the texts for a state: `short` for the badge at the top, `long` for a job and for the line next to the button. */
export function describe(state, elapsed, times) {
  const soFar = elapsed === null ? "" : `${ticking(elapsed)} so far, `;
  switch (state) {
    case "asleep":
      return { short: "Asleep", long: `The server is asleep. The first image ${times ? `usually takes ${seconds(times.p50)} longer` : "takes 10 to 15 s longer"}.` };
    case "booting": {
      const late = times && elapsed > times.p90;
      const than = late ? `longer than usual (9 of 10 times within ${seconds(times.p90)})` : usual(times);
      return { short: "Starting", long: `The server is starting: ${soFar}${than}.` };
    }
    case "up":
      return { short: "Ready", long: "The server is ready. Images start at once." };
    case "failed":
      return { short: "Failed to start", long: "The server failed to start. The next image tries again." };
    default:
      return null;
  }
}

/** Polls the state and shows it in the badge at the top and in the sentence next to the button. */
export class Backend {
  constructor({ badge, sentence, statusUrl, wakeUrl }) {
    Object.assign(this, { badge, sentence, statusUrl, wakeUrl });
    this.times = null;
    document.addEventListener("visibilitychange", () => document.hidden || this.poll());
    this.poll();
  }

  /** Fetch and show the state. Wakes nothing. */
  async poll() {
    clearTimeout(this.timer);
    let state;
    try {
      const response = await fetch(this.statusUrl, { headers: { Accept: "application/json" } });
      const { backend } = await response.json();
      state = backend.state;
      this.show(state, backend.since_s ?? null, backend.usual_boot_s ?? null);
    } catch {
      return; // the page works without it and keeps its initial sentence
    }
    if (!document.hidden) this.timer = setTimeout(() => this.poll(), state === "booting" ? POLL_BOOTING_MS : POLL_IDLE_MS);
  }

  /** Start the backend while the user chooses and uploads. Called when an image was chosen, never on a page view. */
  async wake() {
    if (this.wokenAt && performance.now() - this.wokenAt < WAKE_INTERVAL_MS) return;
    this.wokenAt = performance.now();
    await fetch(this.wakeUrl, { method: "POST" }).catch(() => null);
    this.poll();
  }

  /** Show a state, whether polled or from an event stream. */
  show(state, elapsed, times) {
    this.times = times ?? this.times;
    const texts = describe(state, elapsed, this.times);
    if (!texts) return;
    this.badge.hidden = false;
    this.badge.dataset.state = state;
    this.badge.textContent = texts.short;
    this.sentence.textContent = texts.long;
  }
}
