// Lays the upload over the result, with a range input between them: by mouse, by touch, by keyboard.
"use strict";

const compare = document.getElementById("compare");
const after = compare.querySelector(".after img");

const line = document.createElement("div");
line.className = "line";

const range = document.createElement("input");
range.type = "range";
range.min = "0";
range.max = "100";
range.step = "1";
range.value = "50";
range.setAttribute("aria-label", "How much of the upload lies over the result, in percent");
range.addEventListener("input", () => compare.style.setProperty("--at", `${range.value}%`));

compare.append(line, range);
compare.classList.add("is-live");
compare.classList.toggle("is-small", after.width < 384);
