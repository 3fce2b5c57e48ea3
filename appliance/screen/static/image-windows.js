// Which window a reader looks through: the image's own, one by name, the automatic, or one by hand; and inverted or not.
import { mark, tell, write } from "./image-text.js";
import { ownWindow } from "./voi.js";

const round = (value) => (Math.abs(value) >= 10 ? Math.round(value) : Number(value.toPrecision(3)));

export class Windows {
  #parts;
  #words;
  #named;
  #chosen = null; // {centre, width, kind}; null: each image's own
  #name = "own";
  inverted = false;

  // named: [label, centre, width] of each window that a CT may be seen through.
  constructor(parts, words, named) {
    this.#parts = parts;
    this.#words = words;
    this.#named = named;
  }

  // The window in which an image is to be shown.
  of(meta) {
    return this.#chosen ?? ownWindow(meta);
  }

  reset() {
    this.inverted = false;
    this.#chosen = null;
    this.#name = "own";
  }

  // meta: of the image that is shown; undefined where none is.
  pick(name, meta) {
    const picked = this.#named[Number(name)];
    this.#name = name;
    if (name === "auto" && meta?.auto) {
      this.#chosen = { centre: meta.auto[0], width: meta.auto[1], kind: "LINEAR_EXACT" };
    } else {
      this.#chosen = picked ? { centre: picked[1], width: picked[2], kind: "LINEAR" } : null;
    }
  }

  // A hand moved so many pixels to the right and down.
  drag(dx, dy, meta) {
    const { centre, width, kind } = this.of(meta);
    const [low, high] = meta.range;
    const step = Math.max(width, (high - low) / 64) / 300;
    this.#chosen = { centre: centre + dy * step, width: Math.max(width + dx * step, kind === "LINEAR" ? 1 : 1e-3), kind };
    this.#name = "hand";
  }

  // What a series of this modality can be seen through.
  offer(modality) {
    const isCt = modality === "CT";
    const options = [
      ["own", this.#words.own],
      ...(isCt ? this.#named.map(([label], n) => [String(n), `${n + 1} ${label}`]) : []),
      ["auto", isCt ? `6 ${this.#words.auto}` : this.#words.auto],
      ["hand", this.#words.hand],
    ];
    const { presets } = this.#parts;
    presets.replaceChildren(...options.map(([value, text]) => {
      const option = document.createElement("option");
      option.value = value;
      option.textContent = text;
      option.hidden = value === "hand";
      return option;
    }));
    presets.value = this.#name;
  }

  draw(meta) {
    const { window: text, presets, invert } = this.#parts;
    const isColour = meta.type === "rgb";
    if (isColour) {
      write(text, this.#words.colour);
    } else {
      const { centre, width } = this.of(meta);
      write(text, tell(this.#words.window, { c: round(centre), w: round(width) })
        + (this.inverted ? ` · ${this.#words.inverted}` : ""));
    }
    if (presets.value !== this.#name) presets.value = this.#name;
    if (presets.disabled !== isColour) presets.disabled = isColour;
    mark(invert, "aria-pressed", String(this.inverted));
  }
}
