// The set-up: takes calls over into the form, compares clocks, plays the chime, follows the test study.
import { serverNow } from "./shell.js";

document.getElementById("print")?.addEventListener("click", () => window.print());

document.addEventListener("click", (click) => {
  const taken = click.target.closest("[data-take-ae]");
  if (!taken) return;
  const row = document.getElementById("new-scanner");
  row.querySelector("[name=source_ae]").value = taken.dataset.takeAe;
  row.querySelector("[name=source_address]").value = taken.dataset.takeAddress;
  const name = row.querySelector("[name=source_name]");
  name.value ||= taken.dataset.takeAe.replace(/[^A-Za-z0-9._-]/g, "-");
  name.focus();
});

function compareClocks() {
  const line = document.querySelector("[data-clock]");
  if (!line) return;
  const seconds = Math.round((serverNow() - Date.now()) / 1000);
  line.querySelector("[data-offset]").textContent = `${seconds >= 0 ? "+" : "−"}${Math.abs(seconds)} s`;
}
setInterval(compareClocks, 500);

document.getElementById("play-here")?.addEventListener("click", () => {
  const audio = new AudioContext();
  [[880, 0], [659, 0.28]].forEach(([hertz, at]) => {
    const note = audio.createOscillator();
    const gain = audio.createGain();
    note.frequency.value = hertz;
    gain.gain.setValueAtTime(0.0001, audio.currentTime + at);
    gain.gain.exponentialRampToValueAtTime(0.4, audio.currentTime + at + 0.02);
    gain.gain.exponentialRampToValueAtTime(0.0001, audio.currentTime + at + 0.5);
    note.connect(gain).connect(audio.destination);
    note.start(audio.currentTime + at);
    note.stop(audio.currentTime + at + 0.55);
  });
});

const test = document.getElementById("test");
async function follow() {
  const answer = await fetch("/setup/test/state");
  if (!answer.ok) return;
  const state = await answer.json();
  test.dataset.state = state.state;
  const line = document.getElementById("test-line");
  line.textContent = JSON.parse(test.dataset.words)[state.state];
  line.className = `check-line ${state.state === "done" ? "ok" : state.state === "failed" ? "bad" : "open"}`;
  const shown = {
    sent: state.images ? `${state.sent} / ${state.images}` : "–",
    outcome: [state.outcome, state.reason].filter(Boolean).join(" ") || "–",
    result_s: state.result_s?.toFixed(1) ?? "–",
    alerted: state.alerted ? "✓" : "–",
    delivered: state.owed ? `${state.delivered} / ${state.owed}` : "–",
    words: state.words,
  };
  for (const [name, text] of Object.entries(shown)) test.querySelector(`[data-of=${name}]`).textContent = text;
  if (["making", "sending", "waiting"].includes(state.state)) setTimeout(follow, 300);
}
if (test) follow();
