// The form's page: takes pictures by click, drop, paste and example, and works through them one after another.

import { Backend } from "./backend.js";
import { tellHeight } from "./frame.js";
import { findFault, findFaultOfResult, readHeader } from "./header.js";
import { Job } from "./job.js";
import { count } from "./words.js";

const MAX_JOBS = 20; // each finished one holds its file in the tab's memory

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
const { title } = document;
let jobs = [];
let isRunning = false;
let taking = Promise.resolve(); // the files chosen last are being looked at until it resolves

const owner = {
  backend,
  say(text) {
    document.getElementById("news").textContent = text;
  },
  changed() {
    refresh();
  },
  /** A finished picture opens itself, unless somebody is looking at another. */
  mayOpen: (job) => !jobs.some((other) => other !== job && other.isOpen),
  remove(job) {
    const next = job.element.nextElementSibling ?? job.element.previousElementSibling;
    job.close();
    job.element.remove();
    jobs = jobs.filter((other) => other !== job);
    refresh();
    (next?.querySelector(".job-name") ?? input).focus();
  },
  retry(job) {
    job.become("ready", "Ready.");
    job.find(".job-name").focus();
    run();
  },
};

function choices() {
  const variant = form.querySelector("input[name=variant]:checked");
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
  const [one, many] = choices().scale > 1 ? ["Make it larger", `Make ${waiting} pictures larger`] : ["Clean it up", `Clean ${waiting} pictures up`];
  go.textContent = isRunning ? "Working" : waiting > 1 ? many : one;
  document.documentElement.classList.toggle("is-ready", waiting > 0 && !isRunning);
  const last = jobs.length && jobs.every((job) => job.state === "done") ? "Done: " : "";
  document.title = `${isRunning ? "Working: " : last}${title}`;
  chosen.textContent = waiting && !isRunning ? `${count(waiting, "picture is", "pictures are")} ready.` : "";
  chosen.classList.remove("is-wrong");
}

function complain(text) {
  chosen.textContent = text;
  chosen.classList.add("is-wrong");
  owner.say(text);
}

async function check(job) {
  const unreadable = { type: null, other: "no file that can be read", width: 0, height: 0 };
  const header = await readHeader(job.file).catch(() => unreadable);
  job.checked(header, findFault(job.file, header, limits));
}

/** Take files into the list and look at what they are; the good ones wake the backend. */
function take(files, { isKept = false } = {}) {
  taking = look(files, isKept);
  return taking;
}

async function look(files, isKept) {
  const taken = [...files].slice(0, MAX_JOBS - jobs.length);
  const added = taken.map((file) => new Job(file, owner));
  jobs.push(...added);
  list.append(...added.map((job) => job.element));
  refresh();
  await Promise.all(added.map(check));
  const good = added.filter((job) => job.isWaiting);
  if (good.length && !isKept) backend.wake();
  else if (added.length && !good.length) added[0].find(".job-name").focus();
  if (files.length > taken.length) complain(`The list holds ${MAX_JOBS} pictures. Remove one to add another.`);
}

/** Work through the list, one after another; a refusal that holds for all of them stops it. */
async function run() {
  if (isRunning) return;
  isRunning = true;
  for (let job; (job = jobs.find((one) => one.isWaiting)); ) {
    const { scale, ...others } = choices();
    const fault = findFaultOfResult(job.header, { scale, ...others }, limits);
    if (fault) {
      job.become("failed", fault);
      continue;
    }
    const fields = new FormData(form);
    fields.delete("image");
    if (owner.mayOpen(job)) job.prepare(scale);
    refresh();
    let problem = await job.run(form.action, fields);
    if (problem?.form_token) { // the page was open for too long: once more with the fresh token
      form.elements.token.value = problem.form_token;
      fields.set("token", problem.form_token);
      problem = await job.run(form.action, fields);
    }
    if (problem && (problem.isBroken || problem.status === 429 || problem.status === 503)) break;
  }
  isRunning = false;
  refresh();
}

async function begin() {
  await taking;
  const first = jobs.find((job) => job.isWaiting);
  if (!first) return;
  run();
  first.find(".job-name").focus({ preventScroll: true });
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  first.element.scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
}

form.addEventListener("change", (event) => event.target.name === "variant" && refresh());
form.addEventListener("submit", (event) => {
  event.preventDefault();
  begin();
});

document.documentElement.classList.add("is-live");
input.multiple = true;
input.addEventListener("change", async () => {
  const files = [...input.files];
  input.value = ""; // the same file may be chosen again
  await take(files);
});

let depth = 0; // of dragenter: children fire it too
const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragenter", (event) => {
  if (hasFiles(event)) drop.classList.toggle("is-over", ++depth > 0);
});
document.addEventListener("dragleave", (event) => {
  if (hasFiles(event)) drop.classList.toggle("is-over", --depth > 0);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault(); // else a picture dropped beside would open instead of the page
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  drop.classList.remove("is-over");
  if (event.dataTransfer.files.length) take(event.dataTransfer.files);
  else complain("That is no file. Save the picture first, then drop the file here.");
});

document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (!files.length) return;
  event.preventDefault();
  take(files.map((file) => (file.name === "image.png" ? new File([file], "pasted.png", { type: file.type }) : file)));
});

document.getElementById("examples").addEventListener("click", async (event) => {
  const example = event.target.closest(".example");
  if (!example) return;
  const response = await fetch(example.dataset.url).catch(() => null);
  if (!response?.ok) return complain("The example could not be fetched. Try again.");
  const blob = await response.blob();
  // Its answer is kept as a rule, and then nothing need wake; where it is not, the upload itself wakes.
  await take([new File([blob], example.dataset.name, { type: blob.type })], { isKept: true });
  begin();
  return undefined;
});

tellHeight(form.dataset.frameAncestors);
refresh();
