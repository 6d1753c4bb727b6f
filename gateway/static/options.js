// The form's options: which are chosen, which fields count, and what this browser remembers of them.

import { StrengthField } from "./strength.js";
import { t } from "./text.js";

const KEY = "superres.options";

export class Options {
  constructor(form) {
    this.form = form;
    this.strength = new StrengthField();
    this.remembered = load();
    this.isFormatChosen = "format" in this.remembered;
    this.restore();
    form.addEventListener("change", ({ target }) => {
      if (target.name === "format") this.isFormatChosen = true;
      if (target.id === "by-width") document.getElementById("width").focus();
      if ("remember" in target.dataset) this.remember(target);
      this.refresh();
    });
    this.refresh();
  }

  /** Choose what was chosen at the last visit, unless the address names a variant. */
  restore() {
    const named = new URLSearchParams(location.search).has("variant") ? ["variant"] : [];
    for (const field of this.form.querySelectorAll("[data-remember]")) {
      const value = this.remembered[field.name];
      if (value === undefined || named.includes(field.name)) continue;
      if (field.type === "radio") field.checked ||= field.value === value;
      else if (field.type === "checkbox") field.checked = value === true;
      else field.value = value;
    }
    const chosen = this.form.querySelector("input[name=variant]:checked");
    for (const field of [chosen, ...this.form.querySelectorAll("details :checked")]) {
      const folded = field?.closest("details");
      if (folded) folded.open = true;
    }
  }

  remember(field) {
    if (!field.checkValidity()) return;
    this.remembered[field.name] = field.type === "checkbox" ? field.checked : field.value;
    try {
      localStorage.setItem(KEY, JSON.stringify(this.remembered));
    } catch {
      // storage is blocked: the choice holds until the page is closed
    }
  }

  /** Show the fields that count for the chosen variant, size and format. */
  refresh() {
    const { scale, format } = this.read();
    this.strength.offer(scale === 1);
    document.getElementById("size-field").hidden = scale === 1;
    for (const choice of this.form.querySelectorAll("input[name=scale]")) {
      choice.disabled = scale === 1 || Number(choice.value) > scale;
      if (choice.disabled && choice.checked && scale > 1) this.form.querySelector("input[name=scale]").checked = true;
    }
    const isByWidth = scale > 1 && document.getElementById("by-width").checked;
    document.getElementById("width-field").hidden = !isByWidth;
    Object.assign(document.getElementById("width"), { disabled: !isByWidth, required: isByWidth });
    const lossless = this.form.elements.lossless;
    lossless.disabled = format !== "WEBP"; // a disabled field is not part of the upload
    lossless.closest("label").hidden = lossless.disabled;
    const deep = this.form.elements.depth;
    deep.disabled = format !== "PNG";
    deep.closest("label").hidden = deep.disabled;
    document.getElementById("quality-field").hidden = format === "PNG" || (lossless.checked && !lossless.disabled);
  }

  /** Choose JPEG while every image to upscale is a JPEG and the user has not chosen a format. */
  suggest(types) {
    const hint = document.getElementById("format-hint");
    if (types.length && !this.isFormatChosen) {
      const isJpeg = types.every((type) => type === "JPEG");
      this.form.querySelector(`input[name=format][value=${isJpeg ? "jpeg" : "png"}]`).checked = true;
      hint.textContent = isJpeg ? t("format.suggested") : "";
    }
    if (this.isFormatChosen) hint.textContent = "";
    hint.hidden = !hint.textContent;
    this.refresh();
  }

  /** Return the largest size (2 for 2×) below the chosen one that "Automatic" can make of an image; null if none is. */
  findSmaller(header, isPossible) {
    const automatic = this.form.querySelector("input[name=variant][value=auto]");
    if (!automatic) return null;
    const scales = automatic.dataset.scales.split(" ").map(Number).sort((a, b) => b - a);
    const { made } = plan(header, this.read());
    const sizes = ["3", "2"].filter((size) => Number(size) < made);
    return sizes.find((size) => scales.some((scale) => scale >= Number(size) && isPossible(scale))) ?? null;
  }

  chooseSize(factor) {
    const fields = [["variant", "auto"], ["scale", factor]].map(([name, value]) => this.form.querySelector(`input[name=${name}][value="${value}"]`));
    // The variant so far may not reach this size, which disabled it.
    for (const field of fields) Object.assign(field, { disabled: false, checked: true });
    for (const field of fields) field.dispatchEvent(new Event("change", { bubbles: true }));
  }

  /** Return the chosen options, or those with the variant of this name. `type` is the upload's, for the same format. */
  read(name = null, type = null) {
    const choices = [...this.form.querySelectorAll("input[name=variant]")];
    const variant = choices.find((choice) => choice.value === name) ?? choices.find((choice) => choice.checked);
    const chosen = this.form.querySelector("input[name=format]:checked");
    const same = chosen.dataset.same ? JSON.parse(chosen.dataset.same)[type] : null;
    const format = same ? this.form.querySelector(`input[name=format][value=${same}]`) : chosen;
    const scale = Number(variant.dataset.scale);
    const factor = Number(this.form.querySelector("input[name=scale]:checked:not(:disabled)")?.value) || null;
    return {
      scale,
      factor: name && factor > scale ? null : factor, // of the result, where it is not the variant's scale
      variants: variant.value === "auto" ? choices.filter((one) => one.dataset.auto !== undefined).map((one) => one.value) : [variant.value],
      scales: variant.dataset.scales?.split(" ").map(Number) ?? [scale],
      width: document.getElementById("width").disabled ? null : Number(document.getElementById("width").value) || null,
      format: format.value.toUpperCase(),
      formatSide: Number(format.dataset.maxSide ?? Infinity),
      formatPixels: Number(format.dataset.maxPixels ?? Infinity),
      formatPixelsTransparent: Number(format.dataset.maxPixelsTransparent ?? Infinity),
    };
  }
}

/** Return the size of the result of an upload with these options, and the scale of the variant that makes it. */
export function plan({ width, height }, { scale, factor, scales, width: wanted }) {
  const needed = factor ?? (wanted ? wanted / width : null);
  if (!needed) return { width: width * scale, height: height * scale, made: scale, needed: scale };
  const made = Math.min(...scales.filter((one) => one >= needed), scale);
  return { width: Math.round(width * needed), height: Math.max(1, Math.round(height * needed)), made, needed };
}

/** Return the maximum pixels of an upload for a variant of this scale, as the gateway computes it. */
export const allowedPixels = (scale, { pixels, outputPixels }) => Math.min(pixels, Math.floor(outputPixels / scale ** 2));

function load() {
  try {
    const remembered = JSON.parse(localStorage.getItem(KEY));
    return remembered && typeof remembered === "object" ? remembered : {};
  } catch {
    return {}; // storage is blocked, or has something else
  }
}

/** Return the form's short name of a variant: "Photos". */
export const titleOf = (name) => document.querySelector(`input[name=variant][value="${CSS.escape(name)}"]`)?.dataset.title ?? name;
