// The result while it grows: its bands, painted over the upload as the browser resizes it.

import { toBlob } from "./stream.js";

const CANVAS_MAX_SIDE = 2048; // bands are previews: the file itself has every pixel

export class Growing {
  /** `url` is the upload's; `width` and `height` are those of the result. */
  constructor(url, width, height) {
    Object.assign(this, { width, height });
    this.element = document.getElementById("growing").content.firstElementChild.cloneNode(true);
    this.canvas = this.element.querySelector("canvas");
    this.scale = Math.min(1, CANVAS_MAX_SIDE / Math.max(width, height));
    Object.assign(this.canvas, { width: Math.round(width * this.scale), height: Math.round(height * this.scale) });
    this.element.style.setProperty("--width", width);
    this.element.style.setProperty("--height", height);
    this.showUpload(url);
  }

  showUpload(url) {
    this.element.querySelector("img").src = url;
  }

  fits(width, height) {
    return this.width === width && this.height === height;
  }

  /** Paint a band, as its event describes it. */
  async paint({ top, rows, height, media_type: type, data }) {
    const bitmap = await createImageBitmap(await toBlob(data, type));
    const [from, to] = [Math.floor(top * this.scale), Math.ceil((top + rows) * this.scale)];
    this.canvas.getContext("2d").drawImage(bitmap, 0, from, this.canvas.width, to - from);
    bitmap.close();
    this.element.style.setProperty("--done", `${(100 * (top + rows)) / height}%`);
    this.element.dataset.rows = top + rows;
  }
}
