// A form that was changed and not sent asks before it is left.
let changed = false;
for (const form of document.querySelectorAll("form[data-guard]")) {
  form.addEventListener("input", () => { changed = true; });
  form.addEventListener("submit", () => { changed = false; });
}
window.addEventListener("beforeunload", (leaving) => { if (changed) leaving.preventDefault(); });
