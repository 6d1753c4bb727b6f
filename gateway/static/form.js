// What the form gains from JavaScript: limits checked before the upload, drag and drop, a clock while it works.
"use strict";

const form = document.getElementById("form");
const input = document.getElementById("image");
const drop = form.querySelector(".drop");
const chosen = document.getElementById("chosen");
const state = document.getElementById("state");
const button = form.querySelector("button");
const limits = {
  bytes: Number(form.dataset.maxBytes),
  pixels: Number(form.dataset.maxPixels),
  side: Number(form.dataset.maxSide),
};
const stateAtRest = state.textContent;
const buttonAtRest = button.textContent;
let clock;

const number = (value) => value.toLocaleString("en");

function say(text, isWrong) {
  chosen.textContent = text;
  chosen.classList.toggle("is-wrong", isWrong);
  input.setCustomValidity(isWrong ? text : "");
}

async function look() {
  const file = input.files[0];
  if (!file) return say("", false);
  if (file.size === 0) return say(`${file.name} is empty. Choose another file.`, true);
  if (file.size > limits.bytes) {
    return say(`${file.name} has ${number(file.size)} bytes; ${number(limits.bytes)} is the limit. Save it smaller, or as JPEG or WebP.`, true);
  }
  say(`${file.name}, ${number(Math.ceil(file.size / 1000))} kB`, false);
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (file !== input.files[0]) return undefined;
  if (!bitmap) return undefined; // the server will say what is wrong with it
  const { width, height } = bitmap;
  bitmap.close();
  if (width * height > limits.pixels) {
    return say(`${file.name} has ${width} × ${height} = ${number(width * height)} pixels; ${number(limits.pixels)} is the limit. Send a part of it.`, true);
  }
  if (Math.max(width, height) > limits.side) {
    return say(`${file.name} has ${width} × ${height} pixels; ${number(limits.side)} is the limit for a side.`, true);
  }
  return say(`${file.name}, ${width} × ${height} pixels, ${number(Math.ceil(file.size / 1000))} kB`, false);
}

function rest() {
  clearInterval(clock);
  button.disabled = false;
  button.textContent = buttonAtRest;
  state.textContent = stateAtRest;
}

input.addEventListener("change", look);

for (const kind of ["dragenter", "dragover"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("is-over");
  });
}
for (const kind of ["dragleave", "drop"]) {
  drop.addEventListener(kind, () => drop.classList.remove("is-over"));
}
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) {
    input.files = event.dataTransfer.files;
    look();
  }
});

form.addEventListener("submit", () => {
  const began = Date.now();
  button.disabled = true;
  button.textContent = "Working";
  clock = setInterval(() => {
    state.textContent = `Sent. ${Math.round((Date.now() - began) / 1000)} s so far; this page changes when the picture is there.`;
  }, 1000);
});
window.addEventListener("pageshow", rest); // also when somebody comes back with the browser's button
