// Shows a spinner until the framed gateway posts its height, texts if it does not, and sets the frame's height.
// Runs before the frame exists, so that no message is missed. The gateway's address is only in the iframe.
"use strict";

const SLOW_MS = 6000; // the gateway may scale to zero, too
const LOST_MS = 25000;
const MIN_HEIGHT_PX = 320;
const MAX_HEIGHT_PX = 20000; // the message comes from another origin: bound what it may do

let timers = [];

/** Open the page in the first language of the browser that there is, unless the address says which one was chosen. */
function chooseLanguage() {
  const links = [...document.querySelectorAll("link[hreflang]")];
  for (const link of links) link.href = link.href; // search engines want whole addresses, which only the browser knows
  const pages = Object.fromEntries(links.map((link) => [link.hreflang, link.href]));
  const { lang } = document.documentElement;
  const wanted = navigator.languages.map((tag) => tag.split("-")[0].toLowerCase()).find((code) => pages[code]) ?? lang;
  const isChosen = pages[lang] !== pages["x-default"] || new URLSearchParams(location.search).has("lang");
  if (!isChosen && wanted !== lang) location.replace(pages[wanted] + location.hash);
}

/** Show a state; its sentence is in the page, in the page's language. */
function show(state) {
  const words = document.getElementById("words");
  document.getElementById("frame").dataset.state = state;
  words.dataset.loading ??= words.textContent;
  if (words.dataset[state]) words.textContent = words.dataset[state];
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
  frame.style.height = `${Math.min(Math.max(height, MIN_HEIGHT_PX), MAX_HEIGHT_PX)}px`;
});

/** Let the user move the line between before and after; without a script it stays in the middle. */
function startSlide(slide) {
  const range = Object.assign(document.createElement("input"), { type: "range", min: 0, max: 100, value: 50, className: "slide-range" });
  range.setAttribute("aria-label", slide.dataset.label);
  range.addEventListener("input", () => slide.style.setProperty("--at", `${range.value}%`));
  slide.append(range);
}

chooseLanguage();
document.addEventListener("DOMContentLoaded", () => {
  startSlide(document.getElementById("slide"));
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

// A lazy frame loads after the first layout, so that a slow phone paints the slider's images first. If it is far below the
// screen, the browser would wait until it is near: it loads with the rest instead.
window.addEventListener("load", () => (document.getElementById("gateway").loading = "eager"));
