// While the server starts: the middle of the image, upscaled by the browser. It is never the result: bands replace it.

import { t } from "./text.js";

const NETWORKS = ["compact_x4", "compact_real_x4", "compact_photo_x4"]; // those whose weights the gateway serves
const MAX_SIDE = 128; // pixels of the upload
const HALO = 8; // pixels at an inner edge of the tile that lack their neighbours, which are not shown
const BUDGET_MS = 6_000; // of computing: after that the worker is ended
const MIN_MEMORY_GB = 2;
const MIN_CORES = 2;

/** Whether this device and its connection are fast enough, and the user has not asked to save data. */
function isSuitable() {
  const { connection, deviceMemory = MIN_MEMORY_GB, hardwareConcurrency = MIN_CORES } = navigator;
  const savesData = connection?.saveData || matchMedia("(prefers-reduced-data: reduce)").matches;
  const isSlow = /2g$/.test(connection?.effectiveType ?? "") || deviceMemory < MIN_MEMORY_GB || hardwareConcurrency < MIN_CORES;
  return !savesData && !isSlow && typeof WebAssembly === "object";
}

/**
 * Upscale the middle of the job's upload in a worker and show it in the job's row, until `control` is aborted.
 * `planned` is the size of the result, `name` is the chosen variant; `control.variant` becomes the one whose network is used.
 */
export async function previewTile(job, planned, name, control) {
  const { signal } = control;
  const automatic = job.header.type === "JPEG" ? "compact_real_x4" : "compact_x4"; // the server's usual choice
  const variant = (control.variant = name === "auto" ? automatic : name);
  if (!NETWORKS.includes(variant) || !isSuitable()) return;
  const image = await readMiddle(job.preview);
  if (!image || signal.aborted) return;
  const [code, weights] = await Promise.all([load("preview.wasm", signal), load(`${variant}.f16`, signal)]);
  if (signal.aborted) return;
  await compute({ code, weights, image, budgetMs: BUDGET_MS }, signal, (tile) => show(job, planned, image, tile));
}

/** Return the middle of the upload as RGB, where it is, and the upload's size; null for what the browser cannot show. */
async function readMiddle({ thumb, isPlaceholder }) {
  await thumb.decode();
  const { naturalWidth, naturalHeight } = thumb;
  if (isPlaceholder || !naturalWidth) return null;
  const [width, height] = [Math.min(MAX_SIDE, naturalWidth), Math.min(MAX_SIDE, naturalHeight)];
  const [left, top] = [(naturalWidth - width) >> 1, (naturalHeight - height) >> 1];
  const context = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d", { willReadFrequently: true });
  context.drawImage(thumb, -left, -top);
  const { data } = context.getImageData(0, 0, width, height);
  const rgb = new Uint8Array(3 * width * height);
  for (let pixel = 0; pixel < width * height; pixel += 1) {
    if (data[4 * pixel + 3] < 255) return null; // the server treats transparency with more care
    for (let channel = 0; channel < 3; channel += 1) rgb[3 * pixel + channel] = data[4 * pixel + channel];
  }
  return { rgb, width, height, left, top, upload: { width: naturalWidth, height: naturalHeight } };
}

async function load(name, signal) {
  const response = await fetch(new URL(name, import.meta.url), { signal, priority: "low" });
  if (!response.ok) throw new TypeError(String(response.status));
  return response.arrayBuffer();
}

/** Run the worker until it has finished, its time is over or the signal is aborted. `made` gets each tile. */
function compute(message, signal, made) {
  const worker = new Worker(new URL("preview-worker.js", import.meta.url));
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, BUDGET_MS);
    signal.addEventListener("abort", resolve);
    worker.addEventListener("error", resolve);
    worker.addEventListener("message", ({ data }) => {
      if (!data) clearTimeout(timer);
      if (!data) resolve();
      else if (!signal.aborted) made(data);
    });
    worker.postMessage(message, [message.code, message.weights]);
  }).finally(() => worker.terminate());
}

/** Paint a tile where it belongs, framed if it is a part, and say what it is. */
function show(job, planned, { left, top, width, height, upload }, { tile, pixels }) {
  const canvas = Object.assign(document.createElement("canvas"), { width: 4 * tile.width, height: 4 * tile.height });
  canvas.getContext("2d").putImageData(new ImageData(pixels, canvas.width, canvas.height), 0, 0);
  const [x, right] = span(left + tile.x, Math.min(tile.width, width), upload.width);
  const [y, bottom] = span(top + tile.y, Math.min(tile.height, height), upload.height);
  const stage = job.growing(planned.width, planned.height);
  const [across, down] = [stage.canvas.width / upload.width, stage.canvas.height / upload.height];
  const area = [x * across, y * down, (right - x) * across, (bottom - y) * down];
  const context = stage.canvas.getContext("2d");
  context.clearRect(0, 0, stage.canvas.width, stage.canvas.height);
  context.drawImage(canvas, 4 * (x - left - tile.x), 4 * (y - top - tile.y), 4 * (right - x), 4 * (bottom - y), ...area);
  const isWhole = right - x === upload.width && bottom - y === upload.height;
  if (!isWhole) {
    Object.assign(context, { strokeStyle: "#635bff", lineWidth: Math.max(2, stage.canvas.width / 250) });
    context.strokeRect(...area);
  }
  stage.element.dataset.preview = `${tile.width}x${tile.height}`;
  const text = t(isWhole ? "preview.whole" : "preview.part");
  const place = job.find(".job-stage");
  const note = place.querySelector(".growing-note");
  if (note) return void (note.textContent = text);
  place.append(Object.assign(document.createElement("p"), { className: "growing-note hint", textContent: text }));
  job.owner.announce(t("job.said", { name: job.file.name, text }));
  return undefined;
}

/** Return [first, end) of the pixels to show along one side: all but the halo at edges that are not the image's. */
function span(first, length, side) {
  return [first > 0 ? first + HALO : 0, first + length < side ? first + length - HALO : side];
}
