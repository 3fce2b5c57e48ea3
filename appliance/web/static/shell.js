// What every page but the alert screen shares: the token of acts, proof of life, and news for those who ask for them.
// All times are measured on performance.now(): the machine's clock may jump.
const STALE_MS = 6000; // three beats; the banner is up well within 8 s
const RECONNECT_MS = 3000;

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
  const told = await answer.json().catch(() => ({}));
  throw Object.assign(new Error(told.error ?? String(answer.status)), { status: answer.status });
}

// What a page asks by itself keeps nobody signed in.
export const BACKGROUND = { "X-Background": "1" };

document.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["X-CSRF-Token"] = csrf();
  const { triggeringEvent } = event.detail;
  if (!triggeringEvent?.isTrusted) Object.assign(event.detail.headers, BACKGROUND);
});
// A session that is over: htmx would swap nothing and say nothing.
document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status === 401) location.reload();
});

// A page with data-live hears of journal rows: "scanside:facts" on the document, {seq, studies: [ids]}.
function connect() {
  if (source) source.close();
  triedAt = performance.now();
  source = new EventSource(seq === null ? "/events/page" : `/events/page?after=${seq}`);
  source.addEventListener("facts", (message) => {
    const data = JSON.parse(message.data);
    seq = data.seq;
    alive();
    document.body.dispatchEvent(new CustomEvent("scanside:facts", { detail: data, bubbles: true }));
  });
  // The session is over: the sign-in page comes, and after it this one again.
  source.addEventListener("over", () => location.reload());
  source.addEventListener("beat", (message) => {
    const beat = JSON.parse(message.data);
    if (beat.build !== root.dataset.build || (stream !== null && stream !== beat.stream)) root.dataset.outdated = "true";
    stream = beat.stream;
    server = { now: beat.now, offset: beat.offset_min, at: performance.now() };
    seq = beat.seq;
    root.dataset.ai = beat.ai;
    alive();
  });
}

function alive() {
  aliveAt = performance.now();
  root.dataset.connection = "live";
  tick();
}

const two = (n) => String(n).padStart(2, "0");
export const serverNow = () => (server ? server.now + (performance.now() - server.at) : Date.now());

export function wall(ms) {
  const at = new Date(ms + (server?.offset ?? 0) * 60000);
  return `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}:${two(at.getUTCSeconds())}`;
}

export function elapsed(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  const hours = Math.floor(s / 3600);
  const minutes = Math.floor(s / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(s % 60)}` : `${minutes}:${two(s % 60)}`;
}

function tick() {
  const now = performance.now();
  if (aliveAt !== null && now - aliveAt > STALE_MS && root.dataset.connection === "live") {
    root.dataset.connection = "lost";
    document.getElementById("contact").textContent = wall(server.now + (aliveAt - server.at));
  }
  const isLost = root.dataset.connection !== "live";
  if (isLost && now - triedAt > RECONNECT_MS) connect();
  if (!server || isLost) return;
  document.getElementById("clock").textContent = wall(serverNow());
  for (const time of document.querySelectorAll("time.since")) time.textContent = elapsed(serverNow() - Number(time.dataset.since));
}

// Dialogs: data-open="id" opens, data-close inside one closes it.
document.addEventListener("click", (click) => {
  const opener = click.target.closest("[data-open]");
  if (opener) document.getElementById(opener.dataset.open).showModal();
  const closer = click.target.closest("[data-close]");
  if (closer) closer.closest("dialog").close();
});

// "?" lists the keys of the page, where it has a dialog of them.
document.addEventListener("keydown", (key) => {
  if (key.target.closest("input, textarea, select, dialog[open]") || key.ctrlKey || key.metaKey || key.altKey) return;
  const keys = document.getElementById("keys");
  if (key.key === "?" && keys) keys.showModal();
});

if (root.dataset.live !== undefined) {
  connect();
  setInterval(tick, 250);
}
