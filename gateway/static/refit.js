// What the page offers for a file that the server would refuse: converting, shrinking or cropping it in the browser.

import { Crop } from "./crop.js";
import { decode, fitted, redraw } from "./fit.js";
import { findUploadError } from "./header.js";
import { t } from "./text.js";

const MAX_DECODED_PIXELS = 200_000_000; // decoded, an image has four bytes per pixel
const MAX_FILE_BYTES = 200_000_000;

/**
 * Make the job's file one that the server takes, or show why it cannot be uploaded and what the browser can do.
 * `others` are further ways, as [label, act]: other options with which the file can be uploaded as it is.
 */
export async function refit(job, header, error, limits, others) {
  const { file } = job;
  const isSensible = file.size > 0 && file.size <= MAX_FILE_BYTES && header.width * header.height <= MAX_DECODED_PIXELS;
  const decoded = isSensible && (header.type || header.other || file.type.startsWith("image/")) ? await decode(file, header) : null;
  if (!decoded) {
    job.checked(header, header.other === "HEIC" ? t("refit.heic") : error);
    return job.showWays(others);
  }
  const size = { width: decoded.width, height: decoded.height };
  const target = fitted(size.width, size.height, limits);
  const whole = { x: 0, y: 0, ...size };
  const isSame = target.width === size.width && target.height === size.height;
  const apply = async (from, to, note) => {
    const made = await redraw(decoded, file, header, { from, to, maxBytes: limits.bytes });
    if (!made) return job.showWays([]) ?? job.setState("rejected", t("refit.failed", { error }));
    decoded.close();
    return job.replaceFile(made, { type: made.type === "image/png" ? "PNG" : "JPEG", ...to }, note);
  };
  const kind = header.type ?? header.other ?? t("refit.image");
  if (!header.type && isSame) return apply(whole, target, t("refit.converted", { kind }));
  const reason = header.type ? error : findUploadError({ size: 1 }, { type: kind, ...size }, limits);
  job.checked({ ...header, type: kind, ...size }, t("refit.offer", { error: reason }));
  const crop = () => {
    const tool = new Crop(decoded.url, size, target, (part) => {
      if (!part) return job.showWays(ways);
      const { width, height } = part;
      return apply(part, { width, height }, t("refit.cropped", { width, height }));
    });
    job.showWays([], tool.element);
    tool.box.focus();
  };
  const shrink = [t("refit.shrink", target), () => apply(whole, target, t("refit.shrunk", size))];
  const compress = [t("refit.compress"), () => apply(whole, target, t("refit.compressed"))];
  const ways = [...(isSame ? [compress] : [shrink, [t("refit.crop"), crop]]), ...others];
  return job.showWays(ways);
}
