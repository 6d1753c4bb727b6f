// Reads type and size from the first bytes of a file. Decodes nothing, so a decompression bomb does no harm.

import { bytes, number } from "./format.js";

const HEADER_BYTES = 1_048_576; // a JPEG's size may come after large metadata

const OTHER_TYPES = [
  ["GIF8", 0, "a GIF"], ["BM", 0, "a BMP"], ["II*\0", 0, "a TIFF"], ["MM\0*", 0, "a TIFF"], ["%PDF", 0, "a PDF"],
  ["ftypheic", 4, "a HEIC"], ["ftypheix", 4, "a HEIC"], ["ftypmif1", 4, "a HEIF"], ["ftypavif", 4, "an AVIF"],
  ["<svg", 0, "an SVG"], ["\0\0\x01\0", 0, "an icon"], ["\xff\x0a", 0, "a JPEG XL"],
];

const text = (view, at, length) => String.fromCharCode(...new Uint8Array(view.buffer, at, Math.max(0, Math.min(length, view.byteLength - at))));

function sizeOfPng(view) {
  if (view.byteLength < 26) return null;
  return { width: view.getUint32(16), height: view.getUint32(20), isTransparent: [4, 6].includes(view.getUint8(25)) };
}

function sizeOfJpeg(view) {
  for (let at = 2; at + 9 < view.byteLength; ) {
    if (view.getUint8(at) !== 0xff) return null;
    const marker = view.getUint8(at + 1);
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame) return { width: view.getUint16(at + 7), height: view.getUint16(at + 5) };
    if (marker === 0xff) at += 1; // fill byte
    else if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8)) at += 2;
    else if (marker === 0xd9 || marker === 0xda) return null;
    else at += 2 + view.getUint16(at + 2);
  }
  return null;
}

function sizeOfWebp(view) {
  if (view.byteLength < 30) return null;
  const chunk = text(view, 12, 4);
  if (chunk === "VP8 ") return { width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff };
  if (chunk === "VP8L") {
    const bits = view.getUint32(21, true);
    return { width: (bits & 0x3fff) + 1, height: ((bits >> 14) & 0x3fff) + 1, isTransparent: Boolean(bits & 0x10000000) };
  }
  const side = (at) => 1 + view.getUint16(at, true) + (view.getUint8(at + 2) << 16);
  return chunk === "VP8X" ? { width: side(24), height: side(27), isTransparent: Boolean(view.getUint8(20) & 0x10) } : null;
}

const TYPES = [
  ["PNG", (view) => text(view, 0, 8) === "\x89PNG\r\n\x1a\n", sizeOfPng],
  ["JPEG", (view) => text(view, 0, 3) === "\xff\xd8\xff", sizeOfJpeg],
  ["WebP", (view) => text(view, 0, 4) === "RIFF" && text(view, 8, 4) === "WEBP", sizeOfWebp],
];

/** Return {type, width, height}, and isTransparent if the header declares alpha (the gateway checks a PNG's tRNS).
 * Sizes are 0 if the header does not contain them; type is null for unknown formats. */
export async function readHeader(file) {
  const view = new DataView(await file.slice(0, HEADER_BYTES).arrayBuffer());
  for (const [type, matches, sizeOf] of TYPES) {
    if (matches(view)) return { type, ...(sizeOf(view) ?? { width: 0, height: 0 }) };
  }
  const other = OTHER_TYPES.find(([mark, at]) => text(view, at, mark.length) === mark);
  return { type: null, other: other?.[2], width: 0, height: 0 };
}

/** Return why a file cannot be uploaded, with number, limit and advice; "" if it can. */
export function findUploadError(file, header, limits) {
  const { type, other, width, height } = header;
  if (file.size === 0) return "The file is empty. Choose another one.";
  if (!type) return `This is ${other ?? "not a supported image"}. Save it as JPEG, PNG or WebP and choose it again.`;
  if (file.size > limits.bytes) {
    return `The file has ${number(file.size)} bytes; the maximum is ${number(limits.bytes)} (${bytes(limits.bytes)}). Make it smaller, or save it as JPEG or WebP.`;
  }
  if (width * height > limits.pixels) {
    return `The image has ${number(width)} × ${number(height)} = ${number(width * height)} pixels; the maximum is ${number(limits.pixels)}. Crop it.`;
  }
  if (Math.max(width, height) > limits.side) {
    return `The image has ${number(width)} × ${number(height)} pixels; the maximum per side is ${number(limits.side)}. Crop it.`;
  }
  return "";
}

/** Return why the result cannot be made with these options; "" if it can. */
export function findResultError({ width, height, isTransparent }, { scale, format, formatSide, ...formatLimits }, limits) {
  const [w, h] = [width * scale, height * scale];
  if (w * h > limits.outputPixels) {
    return `The result would have ${number(w)} × ${number(h)} = ${number(w * h)} pixels; the maximum is ${number(limits.outputPixels)}. Crop the image.`;
  }
  if (Math.max(w, h) > formatSide) {
    return `The result would have ${number(w)} × ${number(h)} pixels; the maximum per side for ${format} is ${number(formatSide)}. Choose PNG.`;
  }
  const pixels = isTransparent ? formatLimits.formatPixelsTransparent : formatLimits.formatPixels;
  if (w * h > pixels) {
    const kind = isTransparent ? `${format} with transparency` : format;
    return `The result would have ${number(w)} × ${number(h)} = ${number(w * h)} pixels; the maximum for ${kind} is ${number(pixels)}. Choose PNG.`;
  }
  return "";
}
