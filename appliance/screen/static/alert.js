// The alert screen. The server paints; this script swaps what it painted, proves that it is alive, sounds, and sends
// the two acts of a screen. All times are measured on performance.now(): the machine's clock may jump.
const STALE_MS = 6000; // three beats; the banner is up well within 8 s
const RECONNECT_MS = 3000;
const REVEAL_MS = 20000;

const root = document.documentElement;
const board = document.getElementById("board");
const dialog = document.getElementById("acknowledge");
const nameField = document.getElementById("acknowledge-name");
const quality = document.getElementById("quality");
const qualityForm = quality.querySelector("form");
const heard = new Set(); // alerts that have sounded on this page
const reported = new Set(); // alerts whose painting the server was told of

let source = null;
let seq = Number(root.dataset.seq);
let stream = null;
let aliveAt = null; // performance.now() of the last word from the server
let triedAt = -Infinity;
let server = null; // {now, offset, at}: the server's wall clock and when it was read
let revealed = null; // {study, text, until}
let sound = null;
let chimes = 0;

function connect() {
  if (source) source.close();
  triedAt = performance.now();
  // A new EventSource does not know the last id; one that reconnects by itself sends it, and that wins.
  source = new EventSource(`/events?after=${seq}`);
  source.addEventListener("board", (message) => {
    const data = JSON.parse(message.data);
    seq = data.seq;
    root.dataset.seq = String(seq);
    paint(data.html);
    alive();
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
}

function alive() {
  aliveAt = performance.now();
  root.dataset.connection = "live";
  tick();
}

function paint(html) {
  board.innerHTML = html;
  const painted = board.firstElementChild;
  root.dataset.state = painted.dataset.state;
  root.dataset.ai = painted.dataset.ai;
  if (revealed) reveal();
  if (dialog.open && !board.querySelector(`[data-alert="${dialog.dataset.alert}"]`)) dialog.close();
  // Another analysis may warn of something else: then the question is another one.
  const { study, analyses } = quality.dataset;
  if (quality.open && !board.querySelector(`[data-decide="${study}"][data-analyses="${analyses}"]`)) quality.close();
  for (const id of painted.dataset.chime.split(" ").filter(Boolean)) chime(id);
  requestAnimationFrame(() => setTimeout(presented, 0)); // after the frame that shows it
}

function presented() {
  root.dataset.painted = String(Math.round(performance.timeOrigin + performance.now()));
  if (document.visibilityState !== "visible" || root.dataset.connection !== "live") return;
  for (const card of board.querySelectorAll('[data-alert-state="raised"]')) {
    const id = card.dataset.alert;
    // On a small panel the last rows of the list find no place: nobody could see them.
    if (reported.has(id) || card.getBoundingClientRect().right > innerWidth) continue;
    reported.add(id);
    post(`/alerts/${id}/presented`, { screen: root.dataset.screen }).catch(() => reported.delete(id));
  }
}

async function post(address, body) {
  const answer = await fetch(address, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": document.querySelector("meta[name=csrf]").content },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(String(answer.status));
}

// Time ---------------------------------------------------------------------------------------------------------
const two = (n) => String(n).padStart(2, "0");
const serverNow = () => server.now + (performance.now() - server.at);

function wall(ms) {
  const at = new Date(ms + server.offset * 60000);
  return `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}:${two(at.getUTCSeconds())}`;
}

function elapsed(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  const hours = Math.floor(s / 3600);
  const minutes = Math.floor(s / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(s % 60)}` : `${minutes}:${two(s % 60)}`;
}

function tick() {
  const now = performance.now();
  if (aliveAt !== null && now - aliveAt > STALE_MS && root.dataset.connection === "live") {
    root.dataset.connection = "lost";
    dialog.close();
    quality.close();
    document.getElementById("contact").textContent = wall(server.now + (aliveAt - server.at));
  }
  const isLost = root.dataset.connection !== "live";
  if (isLost && now - triedAt > RECONNECT_MS) connect();
  if (!server || isLost) return;
  document.getElementById("clock").textContent = wall(serverNow());
  for (const time of board.querySelectorAll("time.since")) time.textContent = elapsed(serverNow() - Number(time.dataset.since));
  for (const slow of board.querySelectorAll("[data-slow]")) {
    slow.hidden = serverNow() - Number(slow.dataset.slow) < Number(slow.dataset.afterMs);
  }
  if (revealed && now > revealed.until) {
    revealed = null;
    for (const who of board.querySelectorAll(".who[data-shown]")) {
      who.querySelector(".who-line").textContent = who.dataset.shown;
      delete who.dataset.shown;
    }
  }
}

// Sound: two notes, falling for nobody's alarm. A browser lets a page sound only after a touch, or by its own setting.
function soundState() {
  root.dataset.sound = sound.state === "running" ? "on" : "off";
  if (sound.state === "running") for (const id of board.firstElementChild.dataset.chime.split(" ").filter(Boolean)) chime(id);
}

function chime(id) {
  if (heard.has(id) || !sound || sound.state !== "running") return;
  heard.add(id);
  root.dataset.chimes = String((chimes += 1));
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
}

function openSound() {
  if (!window.AudioContext) return;
  sound = new AudioContext();
  sound.addEventListener("statechange", soundState);
  soundState();
}

// Acts ---------------------------------------------------------------------------------------------------------
function offerNames(place, take) {
  place.replaceChildren(...[...board.querySelectorAll("#names option")].map((option) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = option.value;
    button.addEventListener("click", () => take(option.value));
    return button;
  }));
}

function ask(alert) {
  dialog.dataset.alert = alert;
  document.getElementById("acknowledge-which").textContent = board.querySelector(".result h1")?.textContent ?? "";
  document.getElementById("acknowledge-error").hidden = true;
  const names = document.getElementById("acknowledge-names");
  offerNames(names, acknowledge);
  nameField.value = "";
  dialog.showModal();
  if (!names.childElementCount) nameField.focus();
}

async function acknowledge(name) {
  try {
    await post(`/alerts/${dialog.dataset.alert}/acknowledge`, { name });
    dialog.close();
  } catch {
    document.getElementById("acknowledge-error").hidden = false;
  }
}

function askQuality(button) {
  quality.dataset.study = button.dataset.decide;
  quality.dataset.analyses = button.dataset.analyses;
  document.getElementById("quality-which").textContent = button.dataset.what;
  document.getElementById("quality-error").hidden = true;
  qualityForm.reset();
  offerNames(document.getElementById("quality-names"), (name) => { qualityForm.elements.name.value = name; });
  quality.showModal();
}

async function decide() {
  const { choice, reason, name } = qualityForm.elements;
  const { study, analyses } = quality.dataset;
  const answer = { choice: choice.value, reason: reason.value, name: name.value.trim(), analyses: analyses.split(" ").map(Number) };
  try {
    await post(`/studies/${study}/quality`, answer);
    quality.close();
  } catch {
    document.getElementById("quality-error").hidden = false;
  }
}

async function showIdentity(study) {
  const answer = await fetch(`/studies/${study}/identity`);
  if (!answer.ok) return;
  const whose = await answer.json();
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

document.addEventListener("click", (click) => {
  const button = click.target.closest("[data-acknowledge], [data-decide], .who[data-study]");
  if (button?.dataset.acknowledge) ask(button.dataset.acknowledge);
  else if (button?.dataset.decide) askQuality(button);
  else if (button) showIdentity(button.dataset.study);
});
document.addEventListener("pointerdown", () => { if (sound?.state === "suspended") sound.resume(); });
document.addEventListener("keydown", (key) => {
  const button = board.querySelector("[data-acknowledge]");
  if (key.key.toLowerCase() === "a" && button && !dialog.open && !quality.open) {
    key.preventDefault();
    ask(button.dataset.acknowledge);
  }
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
  if (qualityForm.elements.name.value.trim()) decide();
});

openSound();
connect();
setInterval(tick, 250);
