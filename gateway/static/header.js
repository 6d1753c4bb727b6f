// Reads type and size from the first bytes of a file, and checks them before the upload.

import { bytes } from "./format.js";
import { sizeOfBmp, sizeOfGif, sizeOfIsobmff, sizeOfJpeg, sizeOfPng, sizeOfTiff, sizeOfWebp, text } from "./sizes.js";
import { t } from "./text.js";

const HEADER_BYTES = 1_048_576; // a JPEG's size may come after large metadata

const OTHER_TYPES = [
  ["%PDF", 0, "PDF"], ["<svg", 0, "SVG"], ["\0\0\x01\0", 0, "ICO"], ["\xff\x0a", 0, "JPEG XL"],
];

/** How sentences name a type that is not taken. */
const NAMES = { PDF: "check.pdf", SVG: "check.svg", ICO: "check.icon", "JPEG XL": "check.jxl", unreadable: "check.unreadable" };

const TYPES = [
  ["PNG", (view) => text(view, 0, 8) === "\x89PNG\r\n\x1a\n", sizeOfPng],
  ["JPEG", (view) => text(view, 0, 3) === "\xff\xd8\xff", sizeOfJpeg],
  ["WebP", (view) => text(view, 0, 4) === "RIFF" && text(view, 8, 4) === "WEBP", sizeOfWebp],
  ["AVIF", (view) => isBrand(view, /avi[fs]/), sizeOfIsobmff],
  ["HEIC", (view) => isBrand(view, /he[iv][cxms]|mif[12]|msf1/), sizeOfIsobmff],
  ["TIFF", (view) => ["II*\0", "MM\0*"].includes(text(view, 0, 4)), sizeOfTiff],
  ["BMP", (view) => text(view, 0, 2) === "BM", sizeOfBmp],
  ["GIF", (view) => text(view, 0, 4) === "GIF8", sizeOfGif],
];

/** Whether a file of the AVIF and HEIC family names such a brand. A general brand (mif1) comes first in some AVIFs. */
function isBrand(view, brand) {
  return text(view, 4, 4) === "ftyp" && brand.test(text(view, 8, Math.min(view.byteLength < 4 ? 0 : view.getUint32(0), 64) - 8));
}

/** Return {type, width, height}, and isTransparent if the header declares alpha (the gateway checks a PNG's tRNS).
 * Sizes are 0 if the header does not contain them; type is null for formats other than `formats`, and `other` names it. */
export async function readHeader(file, formats) {
  const view = new DataView(await file.slice(0, HEADER_BYTES).arrayBuffer());
  for (const [type, matches, sizeOf] of TYPES) {
    if (!matches(view)) continue;
    const size = (await sizeOf(view, file)) ?? { width: 0, height: 0 };
    return formats.includes(type) ? { type, ...size } : { type: null, other: type, ...size };
  }
  const other = OTHER_TYPES.find(([mark, at]) => text(view, at, mark.length) === mark);
  return { type: null, other: other?.[2], width: 0, height: 0 };
}

/**
 * Return why a file cannot be uploaded, with every number and limit that is exceeded, and advice; "" if it can.
 * `limits.allowed` are the pixels that the chosen size (`limits.made` times the sides) permits.
 */
export function findUploadError(file, header, limits) {
  const { type, other, width, height } = header;
  if (file.size === 0) return t("check.empty");
  if (!type) return t("check.type", { what: nameOther(other) });
  const [isLarge, isLong] = [width * height > limits.allowed, Math.max(width, height) > limits.side];
  const reasons = [];
  if (file.size > limits.bytes) {
    reasons.push(t("check.bytes", { bytes: file.size, max: limits.bytes, size: bytes(limits.bytes) }));
  }
  if (isLarge) {
    const values = { width, height, pixels: width * height, max: limits.allowed, made: limits.made };
    reasons.push(t(limits.allowed < limits.pixels ? "check.pixels_at" : "check.pixels", values));
  }
  if (isLong) reasons.push(t("check.side", { width, height, max: limits.side }));
  if (!reasons.length) return "";
  return `${reasons.join(" ")} ${t(isLarge || isLong ? "check.shrink" : "check.smaller")}`;
}

function nameOther(other) {
  if (!other) return t("check.unknown");
  return other in NAMES ? t(NAMES[other]) : t("check.one", { type: other });
}

/** Return why the result cannot be made with these options; "" if it can. */
export function findResultError(header, { width: w, height: h, made, needed }, { scale, format, formatSide, ...formatLimits }, limits) {
  const { width, height, isTransparent } = header;
  if (needed > scale || (width && needed < 1)) {
    return t("check.width", { min: width, max: width * scale, chosen: w });
  }
  const [fullWidth, fullHeight] = [width * made, height * made];
  if (fullWidth * fullHeight > limits.outputPixels) {
    return t("check.result", { width: fullWidth, height: fullHeight, pixels: fullWidth * fullHeight, max: limits.outputPixels });
  }
  if (Math.max(w, h) > formatSide) {
    return t("check.format_side", { width: w, height: h, format, max: formatSide });
  }
  const pixels = isTransparent ? formatLimits.formatPixelsTransparent : formatLimits.formatPixels;
  if (w * h > pixels) {
    return t(isTransparent ? "check.format_transparent" : "check.format_pixels", { width: w, height: h, pixels: w * h, format, max: pixels });
  }
  return "";
}
