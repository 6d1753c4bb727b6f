// The form: takes images by click, drop, paste and example, and upscales them one after another.

import { Backend } from "./backend.js";
import { postHeight } from "./frame.js";
import { findUploadError, findResultError, readHeader } from "./header.js";
import { Job } from "./job.js";
import { count } from "./format.js";
import { StrengthField } from "./strength.js";

const MAX_JOBS = 20; // each finished job holds its result in the tab's memory

const form = document.getElementById("form");
const input = document.getElementById("image");
const drop = document.getElementById("drop");
const go = document.getElementById("go");
const chosen = document.getElementById("chosen");
const list = document.getElementById("jobs");
const limits = {
  bytes: Number(form.dataset.maxBytes),
  pixels: Number(form.dataset.maxPixels),
  side: Number(form.dataset.maxSide),
  outputPixels: Number(form.dataset.maxOutputPixels),
};
const backend = new Backend({
  badge: document.getElementById("backend"),
  sentence: document.getElementById("state"),
  statusUrl: form.dataset.statusUrl,
  wakeUrl: form.dataset.wakeUrl,
});
const strength = new StrengthField();
const { title } = document;
let jobs = [];
let isRunning = false;
let adding = Promise.resolve(); // resolves once the files chosen last are checked

const owner = {
  backend,
  announce(text) {
    document.getElementById("announcements").textContent = text;
  },
  changed() {
    refresh();
  },
  /** Whether a finished image may open its view: not while another one is open. */
  mayOpen: (job) => !jobs.some((other) => other !== job && other.isOpen),
  remove(job) {
    const next = job.element.nextElementSibling ?? job.element.previousElementSibling;
    job.close();
    job.element.remove();
    jobs = jobs.filter((other) => other !== job);
    refresh();
    (next?.querySelector(".job-name") ?? input).focus();
  },
  /** Upscale an image again: with the form's options, or with this variant instead of the form's. */
  retry(job, variant = null) {
    job.variant = variant;
    job.setState("ready", "Ready.");
    job.find(".job-name").focus();
    run();
  },
};

function readOptions(name = null) {
  const choices = [...form.querySelectorAll("input[name=variant]")];
  const variant = choices.find((choice) => choice.value === name) ?? choices.find((choice) => choice.checked);
  const format = form.querySelector("input[name=format]:checked");
  return {
    scale: Number(variant.dataset.scale),
    format: format.value.toUpperCase(),
    formatSide: Number(format.dataset.maxSide),
    formatPixels: Number(format.dataset.maxPixels),
    formatPixelsTransparent: Number(format.dataset.maxPixelsTransparent),
  };
}

function refresh() {
  const waiting = jobs.filter((job) => job.isWaiting).length;
  document.getElementById("work").hidden = !jobs.length;
  document.documentElement.classList.toggle("has-work", jobs.length > 0);
  input.required = !jobs.some((job) => job.isWaiting || job.state === "checking");
  go.disabled = isRunning;
  const { scale } = readOptions();
  strength.offer(scale === 1);
  const [one, many] = scale > 1 ? ["Upscale", `Upscale ${waiting} images`] : ["Clean up", `Clean up ${waiting} images`];
  go.textContent = isRunning ? "Working" : waiting > 1 ? many : one;
  document.documentElement.classList.toggle("is-ready", waiting > 0 && !isRunning);
  const last = jobs.length && jobs.every((job) => job.state === "done") ? "Done: " : "";
  document.title = `${isRunning ? "Working: " : last}${title}`;
  chosen.textContent = waiting && !isRunning ? `${count(waiting, "image is", "images are")} ready.` : "";
  chosen.classList.remove("is-wrong");
}

function showError(text) {
  chosen.textContent = text;
  chosen.classList.add("is-wrong");
  owner.announce(text);
}

async function check(job) {
  const unreadable = { type: null, other: "not a readable file", width: 0, height: 0 };
  const header = await readHeader(job.file).catch(() => unreadable);
  job.checked(header, findUploadError(job.file, header, limits));
}

/** Add files to the list and check them. Valid ones wake the backend, unless their results are expected in the cache. */
function addFiles(files, { isCached = false } = {}) {
  adding = addJobs(files, isCached);
  return adding;
}

async function addJobs(files, isCached) {
  const accepted = [...files].slice(0, MAX_JOBS - jobs.length);
  const added = accepted.map((file) => new Job(file, owner));
  jobs.push(...added);
  list.append(...added.map((job) => job.element));
  refresh();
  await Promise.all(added.map(check));
  const valid = added.filter((job) => job.isWaiting);
  if (valid.length && !isCached) backend.wake();
  else if (added.length && !valid.length) added[0].find(".job-name").focus();
  if (files.length > accepted.length) showError(`The list is full (${MAX_JOBS} images). Remove one to add another.`);
}

/** Upscale the waiting images one after another; stop at a problem that the next one would meet too. */
async function run() {
  if (isRunning) return;
  isRunning = true;
  for (let job; (job = jobs.find((one) => one.isWaiting)); ) {
    const { scale, ...others } = readOptions(job.variant);
    const error = findResultError(job.header, { scale, ...others }, limits);
    if (error) {
      job.setState("failed", error);
      continue;
    }
    const fields = new FormData(form);
    fields.delete("image");
    if (job.variant) {
      fields.set("variant", job.variant);
      fields.delete("strength"); // of the variant that the form has chosen since
    }
    if (owner.mayOpen(job)) job.prepare(scale);
    refresh();
    let problem = await job.run(form.action, fields);
    if (problem?.form_token) { // the form has expired: retry with the new token
      form.elements.token.value = problem.form_token;
      fields.set("token", problem.form_token);
      problem = await job.run(form.action, fields);
    }
    if (problem && (problem.isBroken || problem.status === 429 || problem.status === 503)) break;
  }
  isRunning = false;
  refresh();
}

async function start() {
  await adding;
  const first = jobs.find((job) => job.isWaiting);
  if (!first) return;
  run();
  first.find(".job-name").focus({ preventScroll: true });
  const reducesMotion = matchMedia("(prefers-reduced-motion: reduce)").matches;
  first.element.scrollIntoView({ block: "start", behavior: reducesMotion ? "auto" : "smooth" });
}

form.addEventListener("change", (event) => event.target.name === "variant" && refresh());
form.addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});

document.documentElement.classList.add("is-live");
input.multiple = true;
input.addEventListener("change", async () => {
  const files = [...input.files];
  input.value = ""; // the same file may be chosen again
  await addFiles(files);
});

let depth = 0; // nesting of dragenter events, which children fire too
const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragenter", (event) => {
  if (hasFiles(event)) drop.classList.toggle("is-over", ++depth > 0);
});
document.addEventListener("dragleave", (event) => {
  if (hasFiles(event)) drop.classList.toggle("is-over", --depth > 0);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault(); // otherwise the browser would open a file that is dropped outside the drop area
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  drop.classList.remove("is-over");
  if (event.dataTransfer.files.length) addFiles(event.dataTransfer.files);
  else showError("This is not a file. Save the image first, then drop the file here.");
});

document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (!files.length) return;
  event.preventDefault();
  addFiles(files.map((file) => (file.name === "image.png" ? new File([file], "pasted.png", { type: file.type }) : file)));
});

document.getElementById("examples").addEventListener("click", async (event) => {
  const example = event.target.closest(".example");
  if (!example) return;
  const response = await fetch(example.dataset.url).catch(() => null);
  if (!response?.ok) return showError("The example could not be loaded. Try again.");
  const blob = await response.blob();
  // Its result is usually in the cache, which wakes nothing; if it is not, the upload wakes the backend.
  await addFiles([new File([blob], example.dataset.name, { type: blob.type })], { isCached: true });
  start();
  return undefined;
});

postHeight(form.dataset.frameAncestors);
refresh();
