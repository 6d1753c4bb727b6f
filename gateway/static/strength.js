// The strength of denoising and JPEG repair: the form's number field as a slider, for variants that keep the size.

import { joinUnits } from "./text.js";

const STEP = "0.05"; // of an arrow key

export class StrengthField {
  constructor() {
    this.field = document.getElementById("strength-field"); // missing if no offered variant keeps the size
    if (!this.field) return;
    this.input = this.field.querySelector("input");
    this.input.step = STEP;
    this.input.type = "range";
    this.input.addEventListener("input", () => this.showValue());
  }

  /** Show the slider and send its value, or neither: a variant that changes the size takes no strength. */
  offer(isOffered) {
    if (!this.field) return;
    this.field.hidden = !isOffered;
    this.input.disabled = !isOffered; // a disabled field is not part of the upload
    this.showValue();
  }

  showValue() {
    const text = percent(this.input.value);
    this.field.querySelector("output").textContent = text;
    this.input.setAttribute("aria-valuetext", text);
  }
}

export const percent = (strength) => joinUnits(`${Math.round(100 * strength)} %`);
