// Taking results along: copy, share, and all of them as one ZIP.

import { t } from "./text.js";

/** Return whether this browser can copy images. Frames need the permission of the page around them. */
export const canCopy = () => Boolean(navigator.clipboard?.write && window.ClipboardItem);

export const canShare = (file) => Boolean(navigator.canShare?.({ files: [file] }));

/** Copy an image. Clipboards take PNG only, so the browser converts other formats. */
export function copyImage(file) {
  const png = file.type === "image/png" ? Promise.resolve(file) : toPng(file);
  return navigator.clipboard.write([new ClipboardItem({ "image/png": png })]);
}

async function toPng(file) {
  const bitmap = await createImageBitmap(file);
  const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
  const blob = await new Promise((resolve) => canvas.toBlob(resolve));
  if (!blob) throw new Error("the image is too large to copy");
  return blob;
}

/** Return true once the image was handed to another app, false if the user cancelled. */
export async function shareImage(file) {
  try {
    await navigator.share({ files: [file], title: file.name });
    return true;
  } catch (error) {
    if (error.name === "AbortError") return false;
    throw error;
  }
}

/** Copy or share a job's result and say so; `done` is "Copied." or "Shared." */
export async function takeAlong(job, take, done) {
  try {
    if ((await take(job.resultFile)) === false) return;
    job.saved();
    job.report(done);
  } catch {
    job.report(t("job.not_allowed"));
  }
}

/** Download files as one ZIP, written as a stream and stored without compression: images are compressed already. */
export async function saveZip(files) {
  const { downloadZip } = await import("./client-zip.js");
  const blob = await downloadZip(uniqueNames(files)).blob();
  const url = URL.createObjectURL(blob);
  Object.assign(document.createElement("a"), { href: url, download: "upscaled.zip" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Return {name, input} of each file, with a number in names that are taken. */
function uniqueNames(files) {
  const taken = new Set();
  return files.map((file) => {
    const [, stem, extension] = /^(.*?)(\.[^.]*)?$/.exec(file.name);
    let name = file.name;
    for (let copy = 2; taken.has(name); copy += 1) name = `${stem} (${copy})${extension ?? ""}`;
    taken.add(name);
    return { name, input: file };
  });
}
