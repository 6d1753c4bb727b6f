// Shows the gateway in its frame: a spinner until it speaks, words when it does not, and as high as it says it is.
// Runs before the frame exists, so that no word of it is missed. The address stands in the iframe alone.
"use strict";

const SLOW_MS = 6000; // the gateway may sleep as well
const LOST_MS = 25000;
const LEAST_PX = 320;
const MOST_PX = 20000; // a frame's height is another's word: believed within reason

const words = {
  loading: "Asking the gateway for its page.",
  slow: "The gateway takes its time: it may be waking. It can also be opened by itself.",
  lost: "The gateway does not answer. It may be down, or something between here and there keeps frames away. Open it by itself, or try again later.",
};
let timers = [];

function show(state) {
  document.getElementById("frame").dataset.state = state;
  if (words[state]) document.getElementById("words").textContent = words[state];
}

function wait() {
  timers.forEach(clearTimeout);
  timers = [setTimeout(show, SLOW_MS, "slow"), setTimeout(show, LOST_MS, "lost")];
}

window.addEventListener("message", (event) => {
  const frame = document.getElementById("gateway");
  if (!frame || event.source !== frame.contentWindow || event.origin !== new URL(frame.src).origin) return;
  const { type, height } = event.data ?? {};
  if (type !== "superres:height" || !Number.isFinite(height)) return;
  timers.forEach(clearTimeout);
  show("here");
  frame.style.height = `${Math.min(Math.max(height, LEAST_PX), MOST_PX)}px`;
});

document.addEventListener("DOMContentLoaded", () => {
  const frame = document.getElementById("gateway");
  for (const link of document.querySelectorAll(".gateway-link")) Object.assign(link, { href: frame.src, target: "_blank", rel: "noopener" });
  document.getElementById("address").textContent = new URL(frame.src).host;
  document.getElementById("again").addEventListener("click", () => {
    show("loading");
    wait();
    frame.src = frame.getAttribute("src");
  });
  if (document.getElementById("frame").dataset.state === "loading") wait();
});
