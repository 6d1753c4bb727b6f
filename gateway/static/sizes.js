// Reads the size of an image from the first bytes of its file. Decodes nothing, so a decompression bomb does no harm.

const MAX_TIFF_ENTRIES = 256;
const MAX_BOX_BYTES = 65_536; // the boxes with sizes come first; a 48-megapixel HEIC has 6 kB of them

export const text = (view, at, length) => String.fromCharCode(...new Uint8Array(view.buffer, at, Math.max(0, Math.min(length, view.byteLength - at))));

export function sizeOfPng(view) {
  if (view.byteLength < 26) return null;
  return { width: view.getUint32(16), height: view.getUint32(20), isTransparent: [4, 6].includes(view.getUint8(25)) };
}

export function sizeOfJpeg(view) {
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

export function sizeOfWebp(view) {
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

export const sizeOfGif = (view) => (view.byteLength < 10 ? null : { width: view.getUint16(6, true), height: view.getUint16(8, true) });

export function sizeOfBmp(view) {
  if (view.byteLength < 26) return null;
  if (view.getUint32(14, true) === 12) return { width: view.getUint16(18, true), height: view.getUint16(20, true) };
  return { width: Math.abs(view.getInt32(18, true)), height: Math.abs(view.getInt32(22, true)) }; // a negative height: rows from the top
}

/** The first directory of a TIFF may be anywhere in the file. */
export async function sizeOfTiff(view, file) {
  if (view.byteLength < 8) return null;
  const isLittle = view.getUint8(0) === 0x49;
  const at = view.getUint32(4, isLittle);
  const directory = new DataView(await file.slice(at, at + 2 + 12 * MAX_TIFF_ENTRIES).arrayBuffer());
  const found = {};
  for (let entry = 2; entry + 12 <= directory.byteLength && entry < 2 + 12 * directory.getUint16(0, isLittle); entry += 12) {
    const isShort = directory.getUint16(entry + 2, isLittle) === 3;
    found[directory.getUint16(entry, isLittle)] = isShort ? directory.getUint16(entry + 8, isLittle) : directory.getUint32(entry + 8, isLittle);
  }
  const { 256: width, 257: height, 274: orientation } = found;
  if (!width || !height) return null;
  return orientation > 4 ? { width: height, height: width } : { width, height };
}

/** Return the largest size that boxes of this kind declare, in numbers at these offsets; null without such boxes. */
function findLargest(view, declared, box, [widthAt, heightAt]) {
  let size = null;
  for (let at = declared.indexOf(box); at >= 0 && at + heightAt + 4 <= view.byteLength; at = declared.indexOf(box, at + 4)) {
    const [width, height] = [view.getUint32(at + widthAt), view.getUint32(at + heightAt)];
    if (!size || width * height > size.width * size.height) size = { width, height };
  }
  return size;
}

/** AVIF and HEIC: the largest size that is declared is the image's; others are those of its tiles and thumbnails. */
export function sizeOfIsobmff(view) {
  const declared = text(view, 0, Math.min(view.byteLength, MAX_BOX_BYTES));
  const cropped = findLargest(view, declared, "clap", [4, 12]); // fractions, with a denominator of 1
  const size = cropped ?? findLargest(view, declared, "ispe", [8, 12]);
  const turn = declared.indexOf("irot");
  if (!size || turn < 0 || turn + 4 >= view.byteLength || !(view.getUint8(turn + 4) & 1)) return size;
  return { width: size.height, height: size.width };
}
