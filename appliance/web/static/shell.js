// What every page but the alert screen shares: the token of acts, proof of life, and news for those who ask for them.
// All times are measured on performance.now(): the machine's clock may jump.
import { isPressed } from "./press.js";
import { elapsed, wall } from "./times.js";

const STALE_MS = 6000; // three beats; the banner is up well within 8 s
const RECONNECT_MS = 3000;
const PRESS_MS = 5000; // the longest that a finger holds something up

const root = document.documentElement;
let source = null;
// The journal row that the page reaches: its own word (data-seq) or, from the first beat on, the stream's.
let seq = root.dataset.seq === undefined ? null : Number(root.dataset.seq);
let stream = null;
let aliveAt = null;
let triedAt = -Infinity;
let server = null;

export const csrf = () => document.querySelector("meta[name=csrf]").content;

// POST JSON to an address of ours; throws an Error with .status and the server's words.
export async function post(address, body) {
  const answer = await fetch(address, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf() },
    body: JSON.stringify(body),
  });
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  if (answer.headers.has("X-Trouble")) say(answer.headers.get("X-Trouble"));
  const told = await answer.json().catch(() => ({}));
  throw Object.assign(new Error(told.error ?? String(answer.status)), { status: answer.status });
}

// Says under the bar why an act was not done: one of the texts that the page brought for it.
export function say(what) {
  const said = document.getElementById("said");
  said.textContent = said.dataset[what] ?? said.dataset.failed;
  said.hidden = false;
  said.scrollIntoView({ block: "nearest" });
}

// What a page asks by itself keeps nobody signed in.
export const BACKGROUND = { "X-Background": "1" };

document.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["X-CSRF-Token"] = csrf();
  const { triggeringEvent } = event.detail;
  if (!triggeringEvent?.isTrusted) Object.assign(event.detail.headers, BACKGROUND);
});
// What the page asks for by itself and a finger is on waits for the next time.
document.addEventListener("htmx:beforeSwap", (event) => {
  const { requestConfig, target } = event.detail;
  if (isPressed(target, PRESS_MS) && !requestConfig.triggeringEvent?.isTrusted) event.detail.shouldSwap = false;
});
// htmx would swap nothing and say nothing. 401: the session is over.
document.addEventListener("htmx:responseError", (event) => {
  const { xhr } = event.detail;
  if (xhr.status === 401) location.reload();
  else say(xhr.getResponseHeader("X-Trouble") ?? "failed");
});
// What a page asks again and again is told by the beat.
document.addEventListener("htmx:sendError", (event) => {
  if (event.detail.requestConfig.verb !== "get") say("away");
});

// A page with data-live hears of journal rows: "scanside:facts" on the document, {seq, studies: [ids]}.
function connect() {
  if (source) source.close();
  triedAt = performance.now();
  const after = seq === null ? "" : `&after=${seq}`;
  source = new EventSource(`/events/page?lang=${root.dataset.locale}${after}`);
  source.addEventListener("facts", (message) => {
    const data = JSON.parse(message.data);
    seq = data.seq;
    alive();
    document.body.dispatchEvent(new CustomEvent("scanside:facts", { detail: data, bubbles: true }));
  });
  // The session is over: the sign-in page comes, and after it this one again.
  source.addEventListener("over", () => {
    source.close();
    location.reload();
  });
  source.addEventListener("beat", (message) => {
    const beat = JSON.parse(message.data);
    if (beat.build !== root.dataset.build || (stream !== null && stream !== beat.stream)) root.dataset.outdated = "true";
    stream = beat.stream;
    server = { now: beat.now, offset: beat.offset_min, at: performance.now() };
    seq = beat.seq;
    root.dataset.ai = beat.ai;
    shout("overdue", beat.overdue, "overdue-count", beat.overdue);
    shout("fault", beat.fault, "fault-text", beat.fault);
    shout("approvals", beat.approvals, "approvals-count", beat.approvals);
    alive();
  });
}

// A band in the bar, for whom the page has one.
function shout(id, isUp, part, text) {
  const band = document.getElementById(id);
  if (!band) return;
  const place = document.getElementById(part);
  if (isUp && place.textContent !== String(text)) place.textContent = text;
  band.hidden = !isUp;
}

function alive() {
  aliveAt = performance.now();
  root.dataset.connection = "live";
  tick();
}

export const serverNow = () => (server ? server.now + (performance.now() - server.at) : Date.now());

function tick() {
  const now = performance.now();
  if (aliveAt !== null && now - aliveAt > STALE_MS && root.dataset.connection === "live") {
    root.dataset.connection = "lost";
    document.getElementById("contact").textContent = wall(server.now + (aliveAt - server.at), server.offset);
  }
  const isLost = root.dataset.connection !== "live";
  if (isLost && now - triedAt > RECONNECT_MS) connect();
  if (!server || isLost) return;
  document.getElementById("clock").textContent = wall(serverNow(), server.offset);
  for (const time of document.querySelectorAll("time.since")) time.textContent = elapsed(serverNow() - Number(time.dataset.since));
}

// Dialogs: data-open="id" opens, data-close inside one closes it.
document.addEventListener("click", (click) => {
  const opener = click.target.closest("[data-open]");
  if (opener) document.getElementById(opener.dataset.open).showModal();
  const closer = click.target.closest("[data-close]");
  if (closer) closer.closest("dialog").close();
});

// Waits until another run of the box answers, then goes on. Here, since a box that ends gives no further script away.
const restarting = document.getElementById("restarting");
async function goOn() {
  try {
    const answer = await fetch("/settings/run", { redirect: "manual", cache: "no-store", headers: BACKGROUND });
    const isOther = answer.ok ? (await answer.text()) !== restarting.dataset.run : answer.status < 500;
    if (isOther) return void location.assign(restarting.dataset.onward);
  } catch {
    // Nobody is there yet.
  }
  setTimeout(goOn, 250);
}
if (restarting) goOn();

// "?" lists the keys of the page, where it has a dialog of them.
document.addEventListener("keydown", (key) => {
  if (key.target.closest("input, textarea, select, dialog[open]") || key.ctrlKey || key.metaKey || key.altKey) return;
  const keys = document.getElementById("keys");
  if (key.key === "?" && keys) keys.showModal();
});

// Not before the scripts of the page listen, too: nobody tells a fact twice.
if (root.dataset.live !== undefined) {
  document.addEventListener("DOMContentLoaded", () => {
    connect();
    setInterval(tick, 250);
  });
}
