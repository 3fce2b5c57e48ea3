// A package's file goes to the box; it says how far it is, and then what was found of it.
import { csrf } from "./shell.js";

const form = document.getElementById("install");
const said = document.getElementById("install-said");
const bar = form?.querySelector("progress");

function say(text, lines = [], isFault = false) {
  said.hidden = false;
  said.className = isFault ? "notice fault" : "notice";
  said.replaceChildren(Object.assign(document.createElement("p"), { textContent: text }));
  if (!lines.length) return;
  const list = Object.assign(document.createElement("pre"), { textContent: lines.join("\n") });
  list.lang = "en";
  said.append(list);
}

form?.addEventListener("submit", (submit) => {
  submit.preventDefault();
  const words = JSON.parse(form.dataset.words);
  const file = form.elements.file.files[0];
  const button = form.querySelector("button");
  const ask = new XMLHttpRequest();
  const done = () => { button.disabled = false; bar.hidden = true; };
  ask.open("POST", `/models/install?lang=${document.documentElement.dataset.locale}`);
  ask.setRequestHeader("Content-Type", "application/zip");
  ask.setRequestHeader("X-CSRF-Token", csrf());
  ask.upload.addEventListener("progress", (sent) => { bar.value = sent.loaded / sent.total; });
  ask.upload.addEventListener("load", () => { bar.removeAttribute("value"); say(words.checking); });
  ask.addEventListener("error", () => { done(); say(words.broken, [], true); });
  ask.addEventListener("load", () => {
    done();
    if (ask.status === 201) return location.reload();
    let told = {};
    try { told = JSON.parse(ask.responseText); } catch { /* a proxy's words */ }
    return say(told.refused ?? words.failed, told.lines ?? [told.error ?? String(ask.status)], true);
  });
  button.disabled = true;
  bar.hidden = false;
  bar.value = 0;
  say(words.sending);
  ask.send(file);
});
