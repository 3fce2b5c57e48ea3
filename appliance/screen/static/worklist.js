// The worklist while it is open. What changed is drawn anew where it stands; what is new waits behind a pill as long as
// the reader is reading: has scrolled, stands on a row, or is on a further page. Nothing moves under them.
import { BACKGROUND } from "./shell.js";

const GATHER_MS = 1000; // an alert storm is one question a second
const MOST = 100;

const filters = document.querySelector(".filters");
const pill = document.getElementById("pill");
const changed = new Set();
const fresh = new Set();
let isReordered = false;
let timer = null;
let isAsking = false;

const rows = () => document.getElementById("rows");
const links = () => [...document.querySelectorAll("#rows td.c-patient a")];
const isReading = () =>
  window.scrollY > 40 || new URLSearchParams(location.search).has("after") ||
  document.querySelector("dialog[open]") || (rows()?.contains(document.activeElement) ?? false);

document.body.addEventListener("scanside:facts", (event) => {
  for (const id of event.detail.studies) changed.add(String(id));
  // What still moves tells no loud fact with every image: it is asked for with each event.
  for (const row of document.querySelectorAll("#rows tr:not([data-settled])")) changed.add(row.dataset.id);
  if (changed.size) timer ??= setTimeout(ask, GATHER_MS);
});

async function ask() {
  timer = null;
  if (isAsking) return void (timer = setTimeout(ask, GATHER_MS));
  const ids = [...changed].slice(0, MOST);
  for (const id of ids) changed.delete(id);
  isAsking = true;
  try {
    const query = new URLSearchParams(location.search);
    query.set("ids", ids.join(","));
    const answer = await fetch(`/api/worklist?${query}`, { headers: BACKGROUND });
    if (answer.status === 401) return void location.reload();
    if (!answer.ok) throw new Error(String(answer.status));
    take(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    for (const id of ids) changed.add(id); // the next event asks again
  } finally {
    isAsking = false;
  }
  if (changed.size && timer === null) timer = setTimeout(ask, GATHER_MS * 3);
}

function take(answer) {
  for (const row of answer.querySelectorAll("tr[data-id]")) {
    const shown = document.getElementById(row.id);
    if (shown) {
      if (shown.dataset.rank !== row.dataset.rank) isReordered = true;
      renew(shown, row);
    } else if (row.dataset.matches === "true") {
      fresh.add(row.dataset.id);
    }
  }
  if (!fresh.size && !isReordered) return;
  if (isReading()) tell();
  else reload(isReading);
}

// The row stays the same element, so that what stands on it stays there; rows above that grow are scrolled away.
function renew(shown, row) {
  const focused = shown.contains(document.activeElement);
  const anchor = rows().contains(document.activeElement) ? document.activeElement.closest("tr") : null;
  const before = anchor?.getBoundingClientRect().top;
  delete row.dataset.matches;
  for (const name of shown.getAttributeNames()) if (!row.hasAttribute(name)) shown.removeAttribute(name);
  for (const { name, value } of row.attributes) shown.setAttribute(name, value);
  shown.replaceChildren(...document.adoptNode(row).childNodes);
  if (focused) shown.querySelector("a").focus({ preventScroll: true });
  if (anchor) window.scrollBy(0, anchor.getBoundingClientRect().top - before);
}

function tell() {
  pill.textContent = fresh.size ? pill.dataset.new.replace("#", String(fresh.size)) : pill.dataset.order;
  pill.hidden = false;
}

// The whole list anew: counts, order and rows of one moment. Who began to read while it was asked for keeps theirs.
async function reload(isInTheWay = () => false) {
  const answer = await fetch(location.href);
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const list = page.getElementById("list");
  if (!list) return;
  if (isInTheWay()) return tell();
  fresh.clear();
  isReordered = false;
  pill.hidden = true;
  document.getElementById("list").replaceWith(document.adoptNode(list));
}

pill.addEventListener("click", () => {
  if (new URLSearchParams(location.search).has("after")) {
    const query = new URLSearchParams(location.search);
    query.delete("after");
    location.search = query;
    return;
  }
  window.scrollTo(0, 0);
  reload();
});

// Filters act when they are chosen; the text when it is entered.
filters.addEventListener("change", (event) => {
  if (event.target.id === "span") {
    const isDays = event.target.value === "days";
    filters.querySelector(".days").hidden = !isDays;
    if (isDays) return void document.getElementById("from").focus();
    for (const id of ["from", "to"]) document.getElementById(id).value = "";
  }
  if (event.target.id !== "q") filters.requestSubmit();
});

document.addEventListener("click", (click) => {
  const row = click.target.closest("#rows tr");
  if (!row || click.target.closest("a, button") || !getSelection().isCollapsed) return;
  location.assign(row.querySelector("a").href);
});

document.addEventListener("keydown", (key) => {
  if (key.ctrlKey || key.metaKey || key.altKey || document.querySelector("dialog[open]")) return;
  if (key.key === "Escape" && key.target.id === "q") key.target.blur();
  if (key.target.closest("input, textarea, select")) return;
  if (key.key === "j" || key.key === "k") move(key.key === "j" ? 1 : -1);
  else if (key.key === "/") document.getElementById("q").focus();
  else if (key.key === "u") document.getElementById("urgent").click();
  else if (key.key === "r") location.assign("/studies");
  else return;
  key.preventDefault();
});

function move(step) {
  const all = links();
  const at = all.findIndex((link) => link.closest("tr").contains(document.activeElement));
  const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + step, 0), all.length - 1)];
  next?.focus({ preventScroll: true });
  next?.closest("tr").scrollIntoView({ block: "nearest" });
}
