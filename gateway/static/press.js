// Keeps the click on a button that moves between press and release, as when an image above it is rejected meanwhile.

const STILL_PX = 4; // a pointer that moves further drags, or leaves the button on purpose

/** Click the pressed button also where the browser does not: if the layout moved, and not the pointer. */
export function keepClicks() {
  let pressed = null;
  addEventListener("mousedown", ({ target, button, clientX: x, clientY: y }) => {
    const pressable = button === 0 && target.closest?.("button, .button");
    pressed = pressable ? { button: pressable, x, y } : null;
  }, true);
  addEventListener("mouseup", ({ target, clientX: x, clientY: y }) => {
    const press = pressed;
    pressed = null;
    if (!press || press.button.contains(target) || Math.hypot(x - press.x, y - press.y) > STILL_PX) return;
    press.button.click(); // nothing if it is disabled
  }, true);
}
