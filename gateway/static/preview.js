// The upload as the browser shows it: turned as the gateway turned it, or a placeholder if the browser cannot decode it.

import { turn } from "./orientation.js";

const MAX_LETTERS = 40;
const escape = (text) => text.replace(/[<>&"]/g, (letter) => `&#${letter.charCodeAt(0)};`);

export class Preview {
  /** `thumb` shows the upload small. `measured` gets the size that the browser decodes, `changed` every new URL. */
  constructor(thumb, { measured, changed }) {
    Object.assign(this, { thumb, changed, url: null, isPlaceholder: false });
    thumb.addEventListener("load", () => this.isPlaceholder || measured(thumb.naturalWidth, thumb.naturalHeight));
    thumb.addEventListener("error", () => this.url && !this.isPlaceholder && this.replace());
  }

  /** Show a file; null shows nothing. */
  show(file, header) {
    Object.assign(this, { file, header, isPlaceholder: false, isTurned: false });
    this.use(file && URL.createObjectURL(file));
  }

  use(url) {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = url;
    if (!url) return this.thumb.removeAttribute("src");
    this.thumb.src = url;
    return this.changed(url);
  }

  /** Show format and name of a file that this browser cannot decode, such as a TIFF. The server reads it. */
  replace() {
    this.isPlaceholder = true;
    this.use(drawPlaceholder(this.file.name, this.header));
  }

  /** Turn the shown upload as the gateway turned it. The browser did not, and "Redo" sends the event again. */
  async turn(orientation) {
    if (this.isTurned || this.isPlaceholder) return;
    this.isTurned = true;
    const turned = await turn(this.url, orientation);
    this.url = null; // freed by turn()
    this.use(turned);
  }
}

/** Return the URL of an image with the proportions of the upload. */
function drawPlaceholder(name, { type, width, height }) {
  const [w, h] = width && height ? [width, height] : [400, 300];
  const shown = name.length > MAX_LETTERS ? `${name.slice(0, MAX_LETTERS - 1)}…` : name;
  const size = Math.min(w / 5, h / 3);
  const line = (y, letters, words) => `<text x="50%" y="${y}%" font-size="${letters}">${escape(words)}</text>`;
  const lines = line(50, size, type) + line(75, Math.min(size / 2, (1.5 * w) / shown.length), shown);
  const attributes = `xmlns="http://www.w3.org/2000/svg" width="${w}" height="${h}" viewBox="0 0 ${w} ${h}"`;
  const style = 'fill="#fff" font-family="sans-serif" text-anchor="middle"';
  const svg = `<svg ${attributes}><rect width="100%" height="100%" fill="#5f6368"/><g ${style}>${lines}</g></svg>`;
  return URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
}
