// The strength of denoising and JPEG repair: the form's number field as a slider, for variants that keep the size.
// Until it is moved, the gateway chooses the strength by the damage that each image shows.

import { joinUnits, t } from "./text.js";

const STEP = "0.05"; // of an arrow key

export class StrengthField {
  constructor() {
    this.field = document.getElementById("strength-field"); // missing if no offered variant keeps the size
    if (!this.field) return;
    this.input = this.field.querySelector("input");
    this.reset = this.field.querySelector("button");
    const given = this.input.value;
    this.input.step = STEP;
    this.input.type = "range";
    this.choose(given);
    this.input.addEventListener("input", () => this.choose(this.input.value));
    this.reset.addEventListener("click", () => {
      this.choose("");
      this.input.focus(); // the button is hidden now
    });
  }

  /** Show the slider and send its value, or neither: a variant that changes the size takes no strength. */
  offer(isOffered) {
    if (!this.field) return;
    this.field.hidden = !isOffered;
    this.input.disabled = !isOffered; // a disabled field is not part of the upload
  }

  /** Take a value from 0 to 1; an empty one leaves the strength to the gateway. */
  choose(value) {
    this.input.value = value || "1";
    this.input.name = value ? "strength" : ""; // a field without a name is not part of the upload
    this.reset.hidden = !value;
    const text = value ? percent(value) : t("strength.automatic");
    this.field.querySelector("output").textContent = text;
    this.input.setAttribute("aria-valuetext", text);
  }
}

export const percent = (strength) => joinUnits(`${Math.round(100 * strength)} %`);
