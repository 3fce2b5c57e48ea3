// What stands around the picture: series, place in the series, key slices, and what a reader must know of the image.
import { mark, tell, write } from "./image-text.js";

// A button for each series, where there are several; pick(series) when one is pressed.
export function drawSeries(box, list, present, pick) {
  box.toggleAttribute("hidden", list.series.length < 2);
  const old = new Map([...box.children].map((button) => [button.dataset.id, button]));
  box.replaceChildren(...list.series.map((series) => {
    const button = old.get(String(series.id)) ?? document.createElement("button");
    button.type = "button";
    button.className = "iv-chip";
    button.dataset.id = series.id;
    button.dataset.testid = "series";
    const name = [series.modality, series.description].filter(Boolean).join(" · ");
    button.textContent = `${series.number ?? ""} ${name} (${series.pictures.length})`.trim();
    button.setAttribute("aria-pressed", String(series.id === present?.id));
    button.onclick = () => pick(series);
    return button;
  }));
}

// Where the reader is going: the slider, its number, and what can be done from there.
export function drawPlace({ slider, place, scroll, cine, keyButton }, words, { series, index }) {
  const total = series.pictures.length;
  const last = String(Math.max(total - 1, 0));
  if (slider.max !== last) slider.max = last;
  slider.value = index;
  mark(slider, "aria-valuetext", tell(words.place, { n: index + 1, total }));
  write(place, `${index + 1} / ${total}`);
  scroll.hidden = total < 2;
  cine.disabled = total < 2;
  keyButton.disabled = !series.pictures.some((picture) => picture.key);
}

export function drawTicks({ ticks }, { pictures }) {
  const last = pictures.length - 1;
  ticks.replaceChildren(...pictures.flatMap((picture, n) => {
    if (!picture.key) return [];
    const tick = document.createElement("i");
    tick.style.left = `${last > 0 ? (100 * n) / last : 50}%`;
    return [tick];
  }));
}

export function drawNotes({ notes }, series) {
  notes.replaceChildren(...series.notes.map((text) => {
    const line = document.createElement("p");
    line.textContent = text;
    return line;
  }));
}

// Of the picture that is painted, which while another loads is not the one where the reader is going.
export function drawAbout({ at, about }, words, { series, picture, index, frame: { meta } }) {
  const [text, n] = picture.frame ? [words.frame, picture.frame] : [words.number, picture.number];
  write(at, [
    `${index + 1} / ${series.pictures.length}`,
    n === null ? "" : tell(text, { n }),
    picture.key ? words.key : "",
  ].filter(Boolean).join(" · "));
  const side = { L: words.left, R: words.right, B: words.both }[meta.laterality];
  write(about, [series.description || series.modality, meta.view, side].filter(Boolean).join(" · ")
    + (meta.doubtful ? ` · ${words.doubtful}` : ""));
}
