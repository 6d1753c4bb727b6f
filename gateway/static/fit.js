// Makes an upload of a file that the server would refuse: converts, shrinks or crops it in the browser.

const LOSSY = ["JPEG", "WebP", "HEIC", "AVIF"];
const JPEG_QUALITY = 0.95;
const MIN_SVG_SIDE = 1024; // an SVG has no pixels of its own

/** Return the decoded image of a file, or null if this browser cannot show it. */
export async function decode(file, header) {
  const isSvg = header.other === "SVG";
  const source = isSvg ? new Blob([file], { type: "image/svg+xml" }) : file; // an SVG is shown only under its type
  const url = URL.createObjectURL(source);
  const image = Object.assign(new Image(), { src: url });
  try {
    await image.decode();
    let [width, height] = [image.naturalWidth, image.naturalHeight];
    if (isSvg && Math.max(width, height) < MIN_SVG_SIDE) {
      const scale = MIN_SVG_SIDE / Math.max(width, height);
      [width, height] = [Math.round(width * scale), Math.round(height * scale)];
    }
    if (!width || !height) return null;
    return { image, url, width, height, close: () => URL.revokeObjectURL(url) };
  } catch {
    URL.revokeObjectURL(url);
    return null;
  }
}

/** Return the largest size with these proportions that is within the limits, never larger than the image. */
export function fitted(width, height, { allowed, side }) {
  const factor = Math.min(1, Math.sqrt(allowed / (width * height)), side / Math.max(width, height));
  return { width: Math.max(1, Math.floor(width * factor)), height: Math.max(1, Math.floor(height * factor)) };
}

/**
 * Return a file with the part `from` ({x, y, width, height}) of the image, at the size `to`. It is a JPEG if the
 * original was lossy and nothing is transparent, otherwise a PNG; null if the browser cannot make it within `maxBytes`.
 */
export async function redraw(decoded, file, header, { from, to, maxBytes }) {
  const canvas = Object.assign(document.createElement("canvas"), to);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  // A part is given in pixels of the decoded size; an SVG's natural size can differ from it.
  const [x, y] = [decoded.image.naturalWidth / decoded.width, decoded.image.naturalHeight / decoded.height];
  context.drawImage(decoded.image, from.x * x, from.y * y, from.width * x, from.height * y, 0, 0, to.width, to.height);
  const isOpaque = !hasTransparency(context, to);
  const isLossy = LOSSY.includes(header.type ?? header.other);
  const types = isOpaque ? (isLossy ? ["image/jpeg"] : ["image/png", "image/jpeg"]) : ["image/png"];
  for (const type of types) {
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, type, JPEG_QUALITY));
    if (blob && blob.size <= maxBytes) {
      const stem = file.name.replace(/\.[^.]*$/, "");
      return new File([blob], `${stem}.${type === "image/png" ? "png" : "jpg"}`, { type });
    }
  }
  return null;
}

function hasTransparency(context, { width, height }) {
  const rows = Math.max(1, Math.floor(1_048_576 / width)); // a few megabytes at a time
  for (let top = 0; top < height; top += rows) {
    const { data } = context.getImageData(0, top, width, Math.min(rows, height - top));
    for (let at = 3; at < data.length; at += 4) if (data[at] < 255) return true;
  }
  return false;
}
