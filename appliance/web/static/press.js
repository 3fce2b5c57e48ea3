// Where a finger is. A button that is drawn anew under one gets no click: what would draw it waits until the press is
// over, which is told on the document ("scanside:released").
const TAP_MS = 100; // a touch ends a little before its click

let press = null; // {what, at}
let ending = null; // its timer

// Whether a press on a place lasts; not for ever: one that ends outside of the page is never told.
export const isPressed = (place, mostMs) =>
  press !== null && place.contains(press.what) && performance.now() - press.at < mostMs;

document.addEventListener("pointerdown", ({ target }) => {
  clearTimeout(ending);
  press = { what: target, at: performance.now() };
});
for (const end of ["pointerup", "pointercancel"]) {
  addEventListener(end, () => {
    clearTimeout(ending);
    ending = setTimeout(() => {
      press = null;
      document.dispatchEvent(new Event("scanside:released"));
    }, TAP_MS);
  });
}
