// The alert screen. The server paints; this script swaps what it painted, proves that it is alive, sounds, and sends
// what is done at it. All times are measured on performance.now(): the machine's clock may jump.
import { isPressed } from "./press.js";
import { elapsed, wall } from "./times.js";

const STALE_MS = 6000; // three beats; the banner is up well within 8 s
const RECONNECT_MS = 3000;
const REVEAL_MS = 20000;
const PAUSE_MS = 120000;
const PRESS_MS = 1000; // the longest that a finger holds a new board up
const UNREAD_MS = 500; // nobody reads an alert and presses in less
const ANSWERS = ["screen", "technologist", "radiologist"]; // who may answer alerts; the server says so, too

const root = document.documentElement;
const board = document.getElementById("board");
const dialog = document.getElementById("acknowledge");
const nameField = document.getElementById("acknowledge-name");
const quality = document.getElementById("quality");
const qualityForm = quality.querySelector("form");
const tell = document.getElementById("tell");
const tellForm = tell.querySelector("form");
const keys = document.getElementById("keys");
const test = document.getElementById("test"); // of those who may begin one
const isPerson = root.dataset.role !== "screen"; // signed in: nobody asks for the name
const isAnswering = ANSWERS.includes(root.dataset.role);
const heard = new Set(); // alerts that have sounded on this page
const reported = new Set(); // alerts whose painting the server was told of

let source = null;
let seq = Number(root.dataset.seq);
let stream = null;
let aliveAt = null; // performance.now() of the last word from the server
let triedAt = -Infinity;
let server = null; // {now, offset, at}: the server's wall clock and when it was read
let waiting = null; // the board to paint when no finger is on the one before
let replacedAt = -Infinity; // when another alert took the place of one that was shown
let revealed = null; // {study, text, until}
let sound = null;
let chimes = 0;
let soundedAt = -Infinity;
let pausedUntil = null;

function connect() {
  if (source) source.close();
  triedAt = performance.now();
  // A new EventSource does not know the last id; one that reconnects by itself sends it, and that wins.
  source = new EventSource(`/events?after=${seq}&lang=${root.dataset.locale}`);
  source.addEventListener("board", (message) => {
    const data = JSON.parse(message.data);
    seq = data.seq;
    root.dataset.seq = String(seq);
    paint(data.html);
    alive();
  });
  // Whoever looked is signed out, or the screen was taken out of service: say what it is now.
  source.addEventListener("over", () => {
    source.close();
    location.reload();
  });
  source.addEventListener("beat", (message) => {
    const beat = JSON.parse(message.data);
    // An update of the box, or a rebuilt database: start from a fresh page.
    if (beat.build !== root.dataset.build || (stream !== null && stream !== beat.stream)) location.reload();
    stream = beat.stream;
    server = { now: beat.now, offset: beat.offset_min, at: performance.now() };
    root.dataset.ai = beat.ai;
    alive();
  });
  // A session that is over, or a screen that was taken away: this page is not theirs any more.
  source.addEventListener("error", async () => {
    if (source.readyState !== EventSource.CLOSED) return;
    const answer = await fetch("/api/board").catch(() => null);
    if (answer?.status === 401) location.reload();
  });
}

function alive() {
  aliveAt = performance.now();
  root.dataset.connection = "live";
  tick();
}

function paint(html) {
  waiting = isPressed(board, PRESS_MS) ? html : null;
  if (waiting !== null) return;
  const before = calling();
  board.innerHTML = html;
  const after = calling();
  if (before && after && after !== before) replacedAt = performance.now();
  const painted = board.firstElementChild;
  root.dataset.state = painted.dataset.state;
  root.dataset.ai = painted.dataset.ai;
  if (revealed) reveal();
  if (dialog.open && !board.querySelector(`[data-alert="${dialog.dataset.alert}"]`)) dialog.close();
  // Another analysis may warn of something else: then the question is another one.
  if (tell.open && board.querySelector(`[data-taken-back="${tell.dataset.alert}"]`)) tell.close();
  const { study, analyses } = quality.dataset;
  if (quality.open && !board.querySelector(`[data-decide="${study}"][data-analyses="${analyses}"]`)) quality.close();
  for (const id of painted.dataset.chime.split(" ").filter(Boolean)) chime(id);
  requestAnimationFrame(() => setTimeout(presented, 0)); // after the frame that shows it
}

const calling = () => board.querySelector(".bottom [data-acknowledge]")?.dataset.acknowledge;

function paintWaiting() {
  if (waiting !== null) paint(waiting);
}

function presented() {
  root.dataset.painted = String(Math.round(performance.timeOrigin + performance.now()));
  if (document.visibilityState !== "visible" || root.dataset.connection !== "live") return;
  for (const card of board.querySelectorAll('[data-alert-state="raised"]')) {
    const id = card.dataset.alert;
    // On a small panel the last rows of the list find no place: nobody could see them.
    if (card.getBoundingClientRect().right > innerWidth) continue;
    if (isAnswering) report(`/alerts/${id}/presented`, id);
  }
  const trial = board.querySelector('[data-test-state="raised"]');
  if (trial) report(`/alerts/test/${trial.dataset.test}/presented`, `t${trial.dataset.test}`);
}

function report(address, id) {
  if (reported.has(id)) return;
  reported.add(id);
  post(address, {}).catch(() => reported.delete(id));
}

async function post(address, body) {
  const answer = await fetch(address, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": document.querySelector("meta[name=csrf]").content },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw Object.assign(new Error(String(answer.status)), { status: answer.status });
}

// Time ---------------------------------------------------------------------------------------------------------
const serverNow = () => server.now + (performance.now() - server.at);

function tick() {
  const now = performance.now();
  if (aliveAt !== null && now - aliveAt > STALE_MS && root.dataset.connection === "live") {
    root.dataset.connection = "lost";
    for (const open of document.querySelectorAll("dialog[open]")) open.close();
    document.getElementById("contact").textContent = wall(server.now + (aliveAt - server.at), server.offset);
  }
  paintWaiting(); // also where the finger stays
  const isLost = root.dataset.connection !== "live";
  if (isLost && now - triedAt > RECONNECT_MS) connect();
  if (pausedUntil !== null && now >= pausedUntil) unpause();
  if (pausedUntil !== null) document.getElementById("pause-left").textContent = elapsed(pausedUntil - now);
  if (revealed && now > revealed.until) mask(); // also while the box is away
  if (!server || isLost) return;
  repeat(now);
  document.getElementById("clock").textContent = wall(serverNow(), server.offset);
  for (const time of board.querySelectorAll("time.since")) time.textContent = elapsed(serverNow() - Number(time.dataset.since));
  for (const slow of board.querySelectorAll("[data-slow]")) {
    slow.hidden = serverNow() - Number(slow.dataset.slow) < Number(slow.dataset.afterMs);
  }
}

// Sound: two notes, falling for nobody's alarm. A browser lets a page sound only after a touch, or by its own setting.
function soundState() {
  root.dataset.sound = sound.state !== "running" ? "off" : pausedUntil !== null ? "paused" : "on";
  if (sound.state === "running") for (const id of board.firstElementChild.dataset.chime.split(" ").filter(Boolean)) chime(id);
}

// A new alert always sounds, and ends a pause: what was paused was the repeating of one that is known.
function chime(id) {
  if (heard.has(id) || !sound || sound.state !== "running") return;
  heard.add(id);
  if (pausedUntil !== null) unpause();
  ring();
}

// What nobody acknowledges is repeated.
function repeat(now) {
  const calling = board.firstElementChild.dataset.repeat;
  if (calling && sound?.state === "running" && pausedUntil === null && now - soundedAt >= Number(root.dataset.repeatMs)) ring();
}

function pause() {
  if (!sound || sound.state !== "running") return;
  pausedUntil = pausedUntil === null ? performance.now() + PAUSE_MS : null;
  soundState();
}

function unpause() {
  pausedUntil = null;
  soundState();
}

function ring() {
  soundedAt = performance.now();
  for (const [start, pitch] of [[0, 659.3], [0.22, 880], [0.9, 659.3], [1.12, 880]]) {
    const note = sound.createOscillator();
    const volume = sound.createGain();
    const at = sound.currentTime + start;
    note.frequency.value = pitch;
    volume.gain.setValueAtTime(0, at);
    volume.gain.linearRampToValueAtTime(0.5, at + 0.015);
    volume.gain.exponentialRampToValueAtTime(0.001, at + 0.6);
    note.connect(volume).connect(sound.destination);
    note.start(at);
    note.stop(at + 0.65);
  }
  root.dataset.chimes = String((chimes += 1));
}

function openSound() {
  if (!window.AudioContext) return;
  sound = new AudioContext();
  sound.addEventListener("statechange", soundState);
  soundState();
}

// Acts ---------------------------------------------------------------------------------------------------------
const known = () => [...board.querySelectorAll("#names option")].map((option) => option.value);

function offer(place, names, take) {
  place.replaceChildren(...names.map((name) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => take(name));
    return button;
  }));
}

function ask(alert) {
  dialog.dataset.alert = alert;
  if (isPerson) {
    acknowledge("");
    return;
  }
  document.getElementById("acknowledge-which").textContent = board.querySelector(".result h1")?.textContent ?? "";
  document.getElementById("acknowledge-error").hidden = true;
  const names = document.getElementById("acknowledge-names");
  offer(names, known(), acknowledge);
  nameField.value = "";
  dialog.showModal();
  if (!names.childElementCount) nameField.focus();
}

async function acknowledge(name) {
  try {
    await post(`/alerts/${dialog.dataset.alert}/acknowledge`, { name });
    dialog.close();
  } catch {
    notDone("acknowledge-error");
  }
}

// Loud also where no form is open.
function notDone(id) {
  const error = document.getElementById(id);
  error.hidden = false;
  if (!error.closest("dialog").open) sayFailed();
}

function sayFailed() {
  const failed = document.getElementById("failed");
  failed.hidden = false;
  setTimeout(() => { failed.hidden = true; }, 8000);
}

async function askTell(alert) {
  tell.dataset.alert = alert;
  const answer = await fetch(`/alerts/${alert}/communication?lang=${root.dataset.locale}`).catch(() => null);
  if (!answer?.ok) {
    notDone("tell-error");
    return;
  }
  const form = await answer.json();
  const whose = form.identity;
  tellForm.reset();
  document.getElementById("tell-who").textContent = [whose.name, whose.patient_id, whose.accession_number].filter(Boolean).join("  ·  ");
  document.getElementById("tell-what").textContent = form.findings.join(" + ");
  document.getElementById("tell-found").textContent = form.found_at;
  document.getElementById("tell-before").hidden = !form.told.length;
  document.getElementById("tell-already").textContent = form.told.map((one) => `${one.received_by} ${one.at}`).join(", ");
  document.getElementById("tell-error").hidden = true;
  tellForm.elements.at.value = form.now;
  offer(document.getElementById("tell-recipients"), form.recipients.slice(0, 3), (name) => { tellForm.elements.received_by.value = name; });
  const names = document.getElementById("tell-names");
  if (names) offer(names, known().slice(0, 3), (name) => { tellForm.elements.name.value = name; });
  tell.showModal();
}

async function told() {
  const { method, read_back: readBack, received_by: whom, at, name } = tellForm.elements;
  const body = { method: method.value, read_back: readBack.checked, received_by: whom.value.trim(), at: at.value, name: name?.value.trim() ?? "" };
  try {
    await post(`/alerts/${tell.dataset.alert}/communications`, body);
    tell.close();
  } catch {
    notDone("tell-error");
  }
}

async function beginTest() {
  try {
    await post("/alerts/test", { source: document.getElementById("test-source").value });
    test.close();
  } catch {
    document.getElementById("test-error").hidden = false;
  }
}

function askQuality(button) {
  quality.dataset.study = button.dataset.decide;
  quality.dataset.analyses = button.dataset.analyses;
  document.getElementById("quality-which").textContent = button.dataset.what;
  document.getElementById("quality-error").hidden = true;
  qualityForm.reset();
  const names = document.getElementById("quality-names");
  if (names) offer(names, known(), (name) => { qualityForm.elements.name.value = name; });
  quality.showModal();
}

async function decide() {
  const { choice, reason, name } = qualityForm.elements;
  const { study, analyses } = quality.dataset;
  const answer = { choice: choice.value, reason: reason.value, name: name?.value.trim() ?? "", analyses: analyses.split(" ").map(Number) };
  try {
    await post(`/studies/${study}/quality`, answer);
    quality.close();
  } catch {
    document.getElementById("quality-error").hidden = false;
  }
}

async function showIdentity(study) {
  const asked = fetch(`/studies/${study}/identity?lang=${root.dataset.locale}`);
  const whose = await asked.then((answer) => (answer.ok ? answer.json() : null)).catch(() => null);
  if (!whose) {
    sayFailed();
    return;
  }
  const text = [whose.name, whose.patient_id, whose.birth_date, whose.accession_number].filter(Boolean).join("  ·  ");
  revealed = { study, text, until: performance.now() + REVEAL_MS };
  reveal();
}

function reveal() {
  const who = board.querySelector(`.who[data-study="${revealed.study}"]`);
  if (!who) return;
  const line = who.querySelector(".who-line");
  who.dataset.shown ??= line.textContent.replace(/\s+/g, " ").trim();
  line.textContent = revealed.text;
}

function mask() {
  revealed = null;
  for (const who of board.querySelectorAll(".who[data-shown]")) {
    who.querySelector(".who-line").textContent = who.dataset.shown;
    delete who.dataset.shown;
  }
}

// What a key or a line of the list of keys does.
const deeds = {
  acknowledge: () => act(board.querySelector("button[data-acknowledge]")),
  tell: () => act(board.querySelector("button[data-tell]")),
  pause,
  privacy: () => {
    const isOn = root.dataset.privacy !== "on";
    root.dataset.privacy = isOn ? "on" : "off";
    document.querySelector(".privacy").hidden = !isOn;
  },
  full: () => (document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen().catch(() => {})),
  language: () => document.querySelector(".languages a:not([aria-current])")?.click(),
  keys: () => (keys.open ? keys.close() : keys.showModal()),
  test: () => { document.getElementById("test-error").hidden = true; test.showModal(); },
};
const KEYS = { a: "acknowledge", t: "tell", m: "pause", p: "privacy", f: "full", l: "language", "?": "keys" };

function act(button) {
  // What was pressed is the alert that stood here before.
  if (button?.closest(".bottom") && performance.now() - replacedAt < UNREAD_MS) return;
  if (button?.dataset.acknowledge) ask(button.dataset.acknowledge);
  else if (button?.dataset.tell) askTell(button.dataset.tell);
  else if (button?.dataset.decide) askQuality(button);
  else if (button?.dataset.study) showIdentity(button.dataset.study);
}

document.addEventListener("click", (click) => {
  const doing = click.target.closest("[data-do]");
  if (doing) {
    if (doing.dataset.do !== "keys") keys.close();
    deeds[doing.dataset.do]();
  }
  click.target.closest("[data-close]")?.closest("dialog").close();
  act(click.target.closest("[data-acknowledge], [data-tell], [data-decide], .who[data-study]"));
});
document.getElementById("sound").addEventListener("click", () => { if (pausedUntil !== null) unpause(); });
document.addEventListener("scanside:released", paintWaiting);
document.addEventListener("pointerdown", () => { if (sound?.state === "suspended") sound.resume(); });
document.addEventListener("keydown", (key) => {
  const deed = KEYS[key.key.toLowerCase()];
  if (!deed || key.ctrlKey || key.metaKey || key.altKey || key.target.closest("input, select")) return;
  if (document.querySelector("dialog[open]") && !(deed === "keys" && keys.open)) return;
  if (!isAnswering && (deed === "acknowledge" || deed === "tell")) return;
  key.preventDefault();
  deeds[deed]();
});
document.addEventListener("visibilitychange", presented);
document.getElementById("acknowledge-cancel").addEventListener("click", () => dialog.close());
dialog.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (nameField.value.trim()) acknowledge(nameField.value.trim());
});

document.getElementById("quality-cancel").addEventListener("click", () => quality.close());
qualityForm.addEventListener("submit", (event) => {
  event.preventDefault(); // after the browser has seen that everything is filled in
  if (isPerson || qualityForm.elements.name.value.trim()) decide();
});

tellForm.addEventListener("submit", (event) => {
  event.preventDefault(); // after the browser has seen that everything is filled in
  if (tellForm.elements.received_by.value.trim() && (isPerson || tellForm.elements.name.value.trim())) told();
});
// Nobody's whole identity stays in the page.
tell.addEventListener("close", () => { document.getElementById("tell-who").textContent = ""; });
test?.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  beginTest();
});

openSound();
connect();
setInterval(tick, 250);
