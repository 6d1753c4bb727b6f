// The form: takes images by click, drop, paste and example, and upscales them one after another.

import { Backend } from "./backend.js";
import { postHeight } from "./frame.js";
import { findUploadError, findResultError, readHeader } from "./header.js";
import { Job } from "./job.js";
import { loadKept, storeKept } from "./kept.js";
import { megapixels, number } from "./format.js";
import { startSlide } from "./hero.js";
import { Options, allowedPixels, plan } from "./options.js";
import { keepClicks } from "./press.js";
import { saveZip } from "./take.js";
import { t } from "./text.js";

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
const formats = form.dataset.formats.split(" "); // what the server reads
const backend = new Backend({
  badge: document.getElementById("backend"),
  sentence: document.getElementById("state"),
  statusUrl: form.dataset.statusUrl,
  wakeUrl: form.dataset.wakeUrl,
  changed: foretell,
});
const options = new Options(form);
const zip = document.getElementById("zip");
const { title } = document;
const kept = loadKept();
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
  /** A file was made smaller or converted: upscaling it is next. */
  replaced(job) {
    job.read = job.header;
    recheckLater();
    options.suggest(waitingTypes());
    backend.wake();
    job.find(".job-go").focus();
  },
  /** The browser has found the size that a file's header did not have. */
  measured() {
    recheckLater();
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
    if (job.isUnrestored) return restoreOne(job);
    job.variant = variant;
    job.setState("ready", t("job.ready"));
    job.find(".job-name").focus();
    return run();
  },
};

// While the row's own button is on the screen, the form's button does not stick to the edge of it.
const rowButton = new IntersectionObserver((seen) => {
  document.documentElement.classList.toggle("is-row-seen", seen.at(-1).isIntersecting);
});

/** Say in each ready row what its result will be, and in the first one what it waits for. */
function foretell() {
  const ready = jobs.filter((job) => job.isWaiting);
  const chosen = options.read();
  for (const job of ready) {
    const { width, height } = plan(job.header, chosen);
    const larger = width ? t("job.becomes", { width, height }) : "";
    const size = chosen.scale > 1 ? larger : t("job.keeps_size");
    const estimate = backend.estimateWait(job.header.width * job.header.height, chosen.variants);
    const state = backend.state !== "up" ? document.getElementById("state").textContent : "";
    job.foretell(`${size} ${estimate || (job === ready[0] ? state : "")}`.trim());
  }
}

// Browsers show their own question, and only to users who have used the page.
const askToStay = (event) => event.preventDefault();

const waitingTypes = () => jobs.filter((job) => job.isWaiting).map((job) => job.header.type);

function refresh() {
  const ready = jobs.filter((job) => job.isWaiting);
  const waiting = ready.length;
  document.getElementById("work").hidden = !jobs.length;
  document.documentElement.classList.toggle("has-work", jobs.length > 0);
  input.required = !jobs.some((job) => job.isWaiting || job.state === "checking");
  go.disabled = isRunning;
  const { scale } = options.read();
  const act = scale > 1 ? "go.upscale" : "go.clean";
  const label = waiting > 1 ? t(`${act}_many`, { count: waiting }) : t(act);
  go.textContent = isRunning ? t("go.working") : label;
  for (const job of jobs) job.offer(job === ready[0] && !isRunning ? go.textContent : null);
  rowButton.disconnect();
  if (waiting && !isRunning) rowButton.observe(ready[0].find(".job-go"));
  foretell();
  showLimit();
  zip.hidden = isRunning || jobs.filter((job) => job.result).length < 2;
  document.documentElement.classList.toggle("is-ready", waiting > 0 && !isRunning);
  const isDone = jobs.length && jobs.every((job) => job.state === "done");
  const idle = isDone ? t("work.done", { title }) : title;
  document.title = isRunning ? t("work.working", { title }) : idle;
  chosen.textContent = waiting && !isRunning ? t("go.ready", { count: waiting }) : "";
  chosen.classList.remove("is-wrong");
  storeKept(jobs);
  // Without the listener, browsers can keep the page for their back button.
  if (jobs.some((job) => job.wouldBeLost)) addEventListener("beforeunload", askToStay);
  else removeEventListener("beforeunload", askToStay);
}

/** Show the results that this tab had before it was reloaded. */
async function restore() {
  const restored = kept.map((one) => new Job(new File([], one.name), owner, one));
  restored.forEach((job, index) => Object.assign(job, { kept: kept[index], isSaved: kept[index].isSaved }));
  jobs.push(...restored);
  list.append(...restored.map((job) => job.element));
  for (const job of restored) if (jobs.includes(job)) await restoreOne(job);
}

async function restoreOne(job) {
  const problem = await job.restore();
  if (problem?.status === 404 && jobs.includes(job)) owner.remove(job); // expired, or dropped for others
}

function showError(text) {
  chosen.textContent = text;
  chosen.classList.add("is-wrong");
  owner.announce(text);
}

/** Say next to the file field how many pixels the chosen variant and size take. */
function showLimit() {
  const chosen = options.read();
  const made = chosen.factor ? plan({ width: 1, height: 1 }, chosen).made : chosen.scale;
  const allowed = allowedPixels(made, limits);
  const side = number(Math.floor(Math.sqrt(allowed)));
  const key = allowed < limits.pixels ? "limits.such_as_at" : "limits.such_as";
  document.getElementById("limit-pixels").textContent = t(key, { pixels: megapixels(allowed), side, made });
}

/** Return the limits of an upload of this size with the form's options. */
function limitsOf(header) {
  const { made } = plan(header, options.read());
  return { ...limits, made, allowed: allowedPixels(made, limits) };
}

async function check(job) {
  const unreadable = { type: null, other: "unreadable", width: 0, height: 0 };
  return judge(job, await readHeader(job.file, formats).catch(() => unreadable));
}

/** Accept a file, or offer what can be done about it: by other options, or by the browser. */
async function judge(job, header) {
  const applied = limitsOf(header);
  Object.assign(job, { read: header, allowed: applied.allowed });
  const error = findUploadError(job.file, header, applied);
  if (!error) return job.checked(header, "") ?? job.showWays([]);
  const factor = header.type ? options.findSmaller(header, (made) => !findUploadError(job.file, header, { ...limits, allowed: allowedPixels(made, limits) })) : null;
  const others = factor ? [[t("refit.instead", { factor }), () => options.chooseSize(factor)]] : [];
  const { refit } = await import("./refit.js").catch(() => ({ refit: null })); // offline, or the server has gone
  return refit ? refit(job, header, error, applied, others) : job.checked(header, error) ?? job.showWays(others);
}

/** Check images again whose limit another variant or size has changed, once the checks that run are finished. */
function recheckLater() {
  refresh();
  adding = adding.then(recheck);
}

async function recheck() {
  for (const job of jobs.filter(({ read, state }) => read?.type && ["ready", "rejected"].includes(state))) {
    const applied = limitsOf(job.read);
    const isValid = !findUploadError(job.file, job.read, applied);
    if (isValid !== job.isWaiting || (!isValid && applied.allowed !== job.allowed)) await judge(job, job.read);
  }
  refresh();
}

/** Add files to the list and check them. Valid ones wake the backend, unless their results are expected in the cache. */
function addFiles(files, { isCached = false } = {}) {
  adding = adding.then(() => addJobs(files, isCached));
  return adding;
}

async function addJobs(files, isCached) {
  const accepted = [...files].slice(0, MAX_JOBS - jobs.length);
  const added = accepted.map((file) => new Job(file, owner, { isExample: isCached }));
  jobs.push(...added);
  list.append(...added.map((job) => job.element));
  refresh();
  added[0]?.element.scrollIntoView({ block: "nearest" }); // not after the checks: the user may have scrolled on to the button
  await Promise.all(added.map(check));
  const valid = added.filter((job) => job.isWaiting);
  options.suggest(waitingTypes());
  if (valid.length && !isCached) backend.wake();
  else if (added.length && !valid.length) added[0].find(".job-name").focus();
  if (files.length > accepted.length) showError(t("work.full", { max: MAX_JOBS }));
}

/** Upscale the waiting images one after another; stop at a problem that the next one would meet too. */
async function run() {
  if (isRunning) return;
  isRunning = true;
  for (let job; (job = jobs.find((one) => one.isWaiting)); ) {
    const chosen = options.read(job.variant, job.header.type);
    const size = plan(job.header, chosen);
    const error = findResultError(job.header, size, chosen, limits);
    if (error) {
      job.setState("failed", error);
      continue;
    }
    const fields = new FormData(form);
    fields.delete("image");
    if (job.variant) {
      fields.set("variant", job.variant);
      fields.delete("strength"); // of the variant that the form has chosen since
      if (chosen.factor === null) fields.delete("scale");
    }
    if (owner.mayOpen(job)) job.prepare(size);
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

form.addEventListener("change", (event) => ["variant", "scale", "width"].includes(event.target.name) && recheckLater());
form.addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});

zip.addEventListener("click", async () => {
  const done = jobs.filter((job) => job.result);
  zip.disabled = true;
  try {
    await saveZip(done.map((job) => job.resultFile));
    done.forEach((job) => job.saved());
  } catch {
    showError(t("work.zip_failed"));
  }
  zip.disabled = false;
});

document.documentElement.classList.add("is-live");
startSlide(document.getElementById("slide"));
keepClicks();
input.accept += ",image/svg+xml"; // converted before the upload
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
  else showError(t("drop.not_file"));
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
  if (!response?.ok) return showError(t("examples.failed"));
  const blob = await response.blob();
  // Its result is usually in the cache, which wakes nothing; if it is not, the upload wakes the backend.
  await addFiles([new File([blob], example.dataset.name, { type: blob.type })], { isCached: true });
  start();
  return undefined;
});

restore();
refresh();
postHeight(form.dataset.frameAncestors);
