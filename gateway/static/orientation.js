// Turns an upload as the gateway turned it, where the browser does not: by XMP or by EXIF in a WebP, for example.

const AXES = { 2: [-1, 0, 0, 1], 3: [-1, 0, 0, -1], 4: [1, 0, 0, -1], 5: [0, 1, 1, 0], 6: [0, 1, -1, 0], 7: [0, -1, -1, 0], 8: [0, -1, 1, 0] };

/**
 * Return the URL of a turned copy of the image at `url`, which is freed; `url` itself when it cannot be turned, or when
 * its sides show that this browser has turned it. `width` and `height` are those of the upright image.
 */
export async function turn(url, { value, width, height }) {
  const image = Object.assign(new Image(), { src: url });
  try {
    await image.decode();
    if (value > 4 && width !== height && image.naturalWidth === width) return url;
    const [a, b, c, d] = AXES[value];
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d");
    context.setTransform(a, b, c, d, a + c < 0 ? width : 0, b + d < 0 ? height : 0);
    context.drawImage(image, 0, 0);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve));
    if (!blob) return url;
    URL.revokeObjectURL(url);
    return URL.createObjectURL(blob);
  } catch {
    return url;
  }
}
