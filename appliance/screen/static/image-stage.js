// The stage: a frame through a window onto a bitmap, and the bitmap onto the canvas where zoom and pan put it.
import { write } from "./image-text.js";
import { edges, halved, paint, paintHalf, scaleLength, table } from "./voi.js";

const MOST_ZOOM = 24;
const LEAST_ZOOM = 0.25;
const MOST_TABLES = 16;
// Full pixels are fetched when a displayed pixel of the reduced image would cover more than this of the screen.
const COARSE = 1.2;
// An image that is shown at less than half its size is painted at half: a canvas smooths over two by two pixels only,
// or over all of them at the cost of the whole step.
const HALF = 0.5;

const ratio = () => globalThis.devicePixelRatio || 1;

export class Stage {
  #host;
  #parts;
  #words;
  #moved;
  #bitmap = document.createElement("canvas");
  #pixels = null;
  #tables = new Map();
  #shown = null; // {id, frame, colours, isHalf: of the bitmap; null while it is not painted}
  #size = [1, 1]; // asking the page would lay it out anew at every slice
  #zoom = 1;
  #pan = [0, 0];
  #soon = 0;

  // moved(view) is called when the picture lies elsewhere, with null when there is none.
  constructor(host, parts, words, moved) {
    this.#host = host;
    this.#parts = parts;
    this.#words = words;
    this.#moved = moved;
  }

  // Follow the size that the page gives.
  watch(signal) {
    const { stage } = this.#parts;
    const measure = () => { this.#size = [stage.clientWidth, stage.clientHeight]; };
    const watch = new ResizeObserver(() => { measure(); if (this.#shown) this.#draw(); });
    measure();
    watch.observe(stage);
    signal.addEventListener("abort", () => watch.disconnect());
  }

  get zoom() { return this.#zoom; }

  // Where the picture lies, in CSS pixels of the stage: original pixel (0, 0) at (x, y).
  get view() {
    const { cols, rows, aspect } = this.#shown.frame.meta;
    const [width, height] = this.#size;
    const sx = Math.min(width / cols, height / (rows * aspect)) * this.#zoom;
    const sy = sx * aspect;
    return { x: (width - cols * sx) / 2 + this.#pan[0], y: (height - rows * sy) / 2 + this.#pan[1], sx, sy, cols, rows };
  }

  get isReduced() {
    return Boolean(this.#shown && this.#shown.frame.width < this.#shown.frame.meta.cols);
  }

  // Whether a screen could show more than the frame has.
  get isCoarse() {
    if (!this.isReduced) return false;
    const { frame } = this.#shown;
    return (this.view.sx * ratio() * frame.meta.cols) / frame.width > COARSE;
  }

  // Where a pointer is on the stage.
  at(pointer) {
    const corner = this.#parts.stage.getBoundingClientRect();
    return [pointer.clientX - corner.left, pointer.clientY - corner.top];
  }

  // Acts ----------------------------------------------------------------------------------------------------------

  fit() {
    this.#zoom = 1;
    this.#pan = [0, 0];
  }

  // What is under `at` stays under it.
  setZoom(value, at = null) {
    const zoom = Math.min(Math.max(value, LEAST_ZOOM), MOST_ZOOM);
    if (at) {
      const centre = this.#size.map((side) => side / 2);
      this.#pan = this.#pan.map((pan, n) => at[n] - centre[n] - ((at[n] - centre[n] - pan) * zoom) / this.#zoom);
    }
    this.#zoom = zoom;
    if (zoom === 1) this.#pan = [0, 0];
    if (this.#shown) this.#draw();
  }

  move(dx, dy) {
    this.#pan = [this.#pan[0] + dx, this.#pan[1] + dy];
    this.soon(() => this.#draw());
  }

  // With the next frame of the screen, once, whatever a hand does until then.
  soon(draw) {
    if (this.#soon) return;
    this.#soon = requestAnimationFrame(() => {
      this.#soon = 0;
      if (this.#shown) draw();
    });
  }

  // Painting ------------------------------------------------------------------------------------------------------

  show(id, frame, window, isInverted) {
    this.#shown = { id, frame, colours: this.#colours(frame.meta, window, isInverted), isHalf: null };
    this.#draw();
  }

  clear() {
    this.#shown = null;
    this.#parts.stage.dataset.painted = "";
    this.#blank();
    this.#moved(null);
    for (const name of ["left", "right", "top", "bottom", "window", "about", "at"]) write(this.#parts[name], "");
    this.#parts.scale.hidden = true;
  }

  #colours(meta, window, isInverted) {
    if (meta.type === "rgb") return null;
    const name = [meta.type, meta.slope, meta.intercept, meta.inverted, isInverted, window.centre, window.width, window.kind].join();
    let colours = this.#tables.get(name);
    if (!colours) {
      if (this.#tables.size > MOST_TABLES) this.#tables.clear();
      colours = table(meta, window, isInverted);
      this.#tables.set(name, colours);
    }
    return colours;
  }

  #fill(isHalf) {
    const { frame, colours } = this.#shown;
    const [width, height] = isHalf ? [halved(frame.width), halved(frame.height)] : [frame.width, frame.height];
    if (this.#bitmap.width !== width || this.#bitmap.height !== height || !this.#pixels) {
      this.#bitmap.width = width;
      this.#bitmap.height = height;
      this.#pixels = new ImageData(width, height);
    }
    (isHalf ? paintHalf : paint)(frame, colours, this.#pixels.data);
    this.#bitmap.getContext("2d").putImageData(this.#pixels, 0, 0);
    this.#shown.isHalf = isHalf;
  }

  // A black canvas of the size of the stage.
  #blank() {
    const { canvas } = this.#parts;
    const size = this.#size.map((side) => Math.round(side * ratio()));
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    const pen = canvas.getContext("2d", { alpha: false });
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    return pen;
  }

  #draw() {
    const { view } = this;
    const { frame, id, colours } = this.#shown;
    let scales = [(ratio() * view.sx * view.cols) / frame.width, (ratio() * view.sy * view.rows) / frame.height];
    const isHalf = Boolean(colours) && Math.max(...scales) < HALF;
    if (isHalf !== this.#shown.isHalf) this.#fill(isHalf);
    if (isHalf) scales = scales.map((scale) => 2 * scale);
    const pen = this.#blank();
    pen.setTransform(scales[0], 0, 0, scales[1], ratio() * view.x, ratio() * view.y);
    pen.imageSmoothingEnabled = true;
    // "low" is as smooth where an image is made a little smaller, and costs a third; where one is made larger, its
    // edges would lie a pixel off.
    pen.imageSmoothingQuality = Math.min(...scales) >= HALF && Math.max(...scales) <= 1 ? "low" : "medium";
    pen.drawImage(this.#bitmap, 0, 0);
    const { dataset } = this.#parts.stage;
    dataset.painted = id;
    dataset.whole = String(!this.isReduced);
    this.#host.dataset.zoom = this.#zoom;
    this.#moved(view);
    for (const [edge, word] of Object.entries(edges(frame.meta))) write(this.#parts[edge], word);
    this.#drawScale(view);
  }

  #drawScale(view) {
    const { scale, scaleBar, scaleText } = this.#parts;
    const { spacing, spacing_at: at } = this.#shown.frame.meta;
    const perMm = spacing && at ? view.sx / spacing[1] : 0;
    const length = perMm ? scaleLength(perMm, this.#size[0] / 4) : 0;
    scale.hidden = !length;
    if (!length) return;
    scaleBar.style.width = `${length * perMm}px`;
    write(scaleText, `${length} mm${at === "detector" ? ` ${this.#words.detector}` : ""}`);
  }
}
