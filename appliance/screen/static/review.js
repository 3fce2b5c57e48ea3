// The review page. What was entered is a draft in this tab (sessionStorage: it holds words about a patient, and goes
// with the tab); it survives a conflict, a session that is over and a box that does not answer.
import { fill, part, picked, place, read, word } from "./review-rows.js";
import { csrf } from "./shell.js";

const page = document.getElementById("review");
const facts = JSON.parse(page.dataset.facts);
const $ = (id) => document.getElementById(id);
const KEY = `review:${facts.study}`;
const NOTE_MAX = $("note").maxLength;
const PREVIEW_MS = 250;

let draft = { etag: facts.etag, decision: "", reason: "", note: "", opinion: "", answers: [], added: [], seen: {} };
let box = null; // the last box that was drawn: {series, picture, index, x, y, w, h}
let target = null; // the finding that was worked on last
let asked = 0;
let timer = null;
let isBusy = false;

// -- the draft -------------------------------------------------------------------------------------------------------

function save() {
  collect();
  sessionStorage.setItem(KEY, JSON.stringify(draft));
}

function restore() {
  let kept = null;
  try { kept = JSON.parse(sessionStorage.getItem(KEY)); } catch { kept = null; }
  if (!kept || !(kept.decision || kept.note || kept.opinion)) return;
  const isOld = kept.etag !== facts.etag;
  // What was seen belongs to the images that were there then.
  draft = { ...draft, ...kept, etag: facts.etag, seen: isOld ? {} : kept.seen };
  $("note").value = draft.note;
  check("opinion", draft.opinion);
  check("reason", draft.reason);
  for (const given of draft.answers) {
    const row = [...document.querySelectorAll("#amend > .answer")].find(
      (one) => Number(one.dataset.analysis) === given.analysis && one.dataset.finding === given.finding);
    if (row) fill(row, given);
  }
  for (const given of draft.added) fill(add(), given);
  customElements.whenDefined("image-view").then(() => {
    for (const { region } of [...draft.answers, ...draft.added]) {
      if (region) document.querySelector("image-view").setRegion(region.picture, region);
    }
  });
  $("restored").hidden = false;
  if (isOld) tell(word("Changed"));
}

function check(name, value) {
  const found = [...document.getElementsByName(name)].find((one) => one.value === value);
  if (found) found.checked = true;
}

function collect() {
  draft.note = $("note").value;
  draft.opinion = picked("opinion");
  draft.reason = picked("reason");
  draft.answers = [...document.querySelectorAll("#amend > .answer")].map((row) => ({
    analysis: Number(row.dataset.analysis), finding: row.dataset.finding, ...read(row) }));
  draft.added = [...document.querySelectorAll("#added > .answer")].map((row) => {
    const [analysis, finding, code] = part(row, "what").value.split(":");
    return { ...read(row), analysis: Number(analysis), finding, code, added: true, presence: "present" };
  });
}

// -- what may be done ------------------------------------------------------------------------------------------------

const missing = () => (draft.seen.elsewhere ? [] : facts.series.filter((series) => !draft.seen[series]));
const isRevealed = () => !page.dataset.first || Boolean(draft.opinion);

function refresh() {
  collect();
  const left = missing();
  const may = left.length === 0 && facts.series.length > 0 && isRevealed();
  $("gate").classList.toggle("done", left.length === 0);
  const counter = $("left");
  if (counter) counter.textContent = left.length && left.length < facts.series.length ? word("Left").replace("#n", left.length) : "";
  for (const id of ["ai", "decide"]) $(id).hidden = !isRevealed();
  if (isRevealed()) reveal();
  for (const button of document.querySelectorAll("[data-decision]")) {
    button.disabled = !may;
    button.setAttribute("aria-checked", String(button.dataset.decision === draft.decision));
  }
  $("why").hidden = draft.decision !== "disagree";
  $("amend").hidden = draft.decision !== "amend";
  for (const row of document.querySelectorAll("#amend > .answer")) part(row, "particulars").hidden = read(row).presence !== "present";
  $("note-left").textContent = draft.note.length > NOTE_MAX - 100 ? word("Left").replace("#n", NOTE_MAX - draft.note.length) : "";
  const isWhole = may && draft.decision && (draft.decision !== "disagree" || draft.reason);
  $("sending").hidden = !isWhole;
  $("sign").disabled = true;
  clearTimeout(timer);
  asked += 1; // what is on its way shows what was said before
  if (isWhole) timer = setTimeout(preview, PREVIEW_MS);
}

// Key slices and marks of the AI, which the viewer does not ask for before.
function reveal() {
  const viewer = document.querySelector("image-view[data-first]");
  viewer?.removeAttribute("data-first");
  viewer?.renew?.();
}

function decide(decision) {
  const button = document.querySelector(`[data-decision="${decision}"]`);
  if (!button || button.disabled) return;
  draft.decision = decision;
  if (decision === "amend" && !document.querySelector("#amend > .answer, #added > .answer")) add();
  save();
  refresh();
  if (decision === "disagree" && !draft.reason) document.getElementsByName("reason")[0].focus();
  if (decision === "amend") $("amend").querySelector("input, select").focus();
}

// -- findings that are amended or added ------------------------------------------------------------------------------

function add() {
  const row = $("added-row").content.firstElementChild.cloneNode(true);
  $("added").append(row);
  aim(row);
  return row;
}

function aim(row) {
  target?.classList.remove("target");
  target = row;
  target?.classList.add("target");
}

document.addEventListener("image-view:seen", ({ detail }) => {
  const series = String(detail.series);
  const isFirst = !draft.seen[series];
  draft.seen[series] = (draft.seen[series] ?? 0) + 1;
  save();
  if (isFirst) refresh();
});
document.addEventListener("image-view:region", ({ detail }) => {
  box = detail.x === null ? null : detail;
  if (!target || target.closest("[hidden]")) return;
  const had = target.dataset.region ? JSON.parse(target.dataset.region) : null;
  if (box || had?.picture === detail.picture) place(target, box);
  save();
  refresh();
});

page.addEventListener("focusin", (event) => { const row = event.target.closest(".answer"); if (row) aim(row); });
page.addEventListener("input", () => { save(); refresh(); });
page.addEventListener("submit", (event) => event.preventDefault());
page.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.decision) decide(button.dataset.decision);
  const row = button.closest(".answer");
  if (row && button.dataset.part === "use-box") {
    if (box) place(row, box); else part(row, "region").textContent = word("Draw");
  }
  // What goes away hands the keyboard on.
  if (row && button.dataset.part === "no-box") {
    place(row, null);
    part(row, "use-box").focus();
  }
  if (row && button.dataset.part === "drop") {
    row.remove();
    $("add").focus();
  }
  if (button.id === "add") part(add(), "what").focus();
  if (row || button.id === "add") { save(); refresh(); }
});
$("elsewhere")?.addEventListener("change", (event) => {
  draft.seen.elsewhere = event.target.checked ? 1 : 0;
  save();
  refresh();
});

// -- what will be sent, and signing ----------------------------------------------------------------------------------

function body(more = {}) {
  collect();
  return { ...draft, answers: [...draft.answers, ...draft.added], added: undefined, ...more };
}

async function ask(address, given) {
  const headers = { "Content-Type": "application/json", "X-CSRF-Token": csrf() };
  const answer = await fetch(address, { method: "POST", headers, body: JSON.stringify(given) });
  if (answer.status === 401) signIn();
  return answer;
}

// again: although somebody is signed in here.
function signIn(again = false) {
  save();
  location.assign(`/sign-in?${again ? "again=1&" : ""}next=${encodeURIComponent(location.pathname + location.search)}`);
}

async function preview() {
  const n = asked;
  try {
    const answer = await ask(`/studies/${facts.study}/review/preview`, body());
    if (answer.status === 401) return;
    const [shown, why] = answer.ok ? [await answer.text(), ""] : ["", (await answer.json()).error];
    if (n !== asked) return;
    refuse(why);
    $("sent").replaceChildren(...new DOMParser().parseFromString(shown, "text/html").body.childNodes);
    $("sign").disabled = !answer.ok || isBusy;
  } catch {
    if (n === asked) refuse(word("Offline"));
  }
}

function refuse(words) {
  $("refused").textContent = words;
  $("refused").hidden = !words;
}

function tell(words) {
  $("conflict").querySelector("span").textContent = words;
  $("conflict").hidden = false;
}

async function sign(password = "") {
  if (isBusy || ($("sign").disabled && !password)) return;
  isBusy = true;
  $("sign").disabled = true;
  save();
  try {
    const answer = await ask(`/studies/${facts.study}/review`, body(password ? { password } : {}));
    if (answer.status === 401) return;
    const told = await answer.json();
    if (answer.ok) {
      sessionStorage.removeItem(KEY);
      location.assign(`/reviews?done=${facts.study}${page.dataset.first ? "&first=1" : ""}`);
      return;
    }
    if (told.proof) { prove(told); return; }
    if (told.conflict) {
      $("proof").close();
      tell(told.by ? word("Conflict").replace("#name", told.by).replace("#time", told.at) : word("Images"));
      $("reload").focus();
      return;
    }
    $("proof").close();
    refuse(told.error);
  } catch {
    refuse(word("Offline"));
  } finally {
    isBusy = false;
    $("sign").disabled = !$("conflict").hidden;
  }
}

function prove(told) {
  if (told.proof === "sign-in") { signIn(true); return; }
  const error = { wrong: word("Wrong"), wait: word("Wait") }[told.proof] ?? "";
  $("proof-error").textContent = error;
  $("proof-error").hidden = !error;
  $("password").value = "";
  if (!$("proof").open) $("proof").showModal();
  $("password").focus();
}

$("sign").addEventListener("click", () => sign());
$("proof-form").addEventListener("submit", (event) => { event.preventDefault(); sign($("password").value); });
$("reload").addEventListener("click", () => { save(); location.reload(); });
$("discard").addEventListener("click", () => { sessionStorage.removeItem(KEY); location.reload(); });

const KEYS = { y: "agree", n: "disagree", e: "amend", u: "cannot_judge" };
// Escape leaves what was opened; the keys of the page are at hand again.
page.addEventListener("keydown", (key) => {
  if (key.key !== "Escape" || !key.target.closest("#why, #amend, #note, #opinion")) return;
  key.preventDefault();
  const decided = document.querySelector('[data-decision][aria-checked="true"]:enabled');
  if (decided) decided.focus();
  else key.target.blur();
});
document.addEventListener("keydown", (key) => {
  if (key.ctrlKey || key.metaKey || key.altKey || key.repeat) return;
  if (key.target.closest("dialog[open], textarea, select") || key.target.closest("input:not([type=range], [type=radio], [type=checkbox])")) return;
  const pressed = key.key.toLowerCase();
  if (KEYS[pressed]) { key.preventDefault(); decide(KEYS[pressed]); }
  if (pressed === "s" && !$("sign").disabled && !$("sending").hidden) { key.preventDefault(); sign(); }
});

restore();
refresh();
