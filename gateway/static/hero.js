// The before/after slider at the top of the page: a range field that covers the two images.

import { t } from "./text.js";

/** Let the user move the line of the slider; without a script it stays in the middle. */
export function startSlide(slide) {
  if (!slide) return;
  const range = Object.assign(document.createElement("input"), { type: "range", min: 0, max: 100, value: 50, className: "slide-range" });
  range.setAttribute("aria-label", t("hero.range"));
  range.addEventListener("input", () => slide.style.setProperty("--at", `${range.value}%`));
  slide.append(range);
}
