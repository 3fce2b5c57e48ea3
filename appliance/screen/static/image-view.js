// <image-view>: the images of one study on a canvas of its own. Its parts stand in viewer.html, so that texts are
// translated there and a browser without scripts shows the preview.
//
// For pages that include it:
//   attribute data-first: no place of the AI is asked for; renew() after it was taken away
//   show(series, index), showPicture(id)      go to a slice
//   event image-view:seen {series, index, picture}      a slice was on the screen for a third of a second
//   attribute editable; event image-view:region {series, index, picture, frame, x, y, w, h} in pixels of the image, or
//   with x null where the box was removed; setRegion(picture, {x, y, w, h} | null)
import { Box } from "./image-box.js";
import { Frames } from "./image-pixels.js";
import { edges, ownWindow, paint, scaleLength, table } from "./voi.js";

const SVG = "http://www.w3.org/2000/svg";
const SEEN_MS = 300;
const AROUND = 12;
const CINE_MS = 100;
const OPEN_POLL_MS = 2000;
const LIST_AGAIN_MS = 3000;
const WHEEL_PX = 40;
const MOST_ZOOM = 24;
const LEAST_ZOOM = 0.25;
// Full pixels are fetched when a displayed pixel of the reduced image would cover more than this of the screen.
const COARSE = 1.2;
const MARKS_KEY = "image-view:marks";
const MOST_MEASURES = 100;

// Only what changes is written: every write makes the browser lay out and paint.
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

class ImageView extends HTMLElement {
  #parts = {};
  #words = {};
  #windows = [];
  #list = null;
  #series = null;
  #index = 0;
  #frames = null;
  #shown = null; // what is painted: {series, picture, index, frame, whole}
  #window = null; // {centre, width, kind}, null: each image's own
  #preset = "own";
  #inverted = false;
  #zoom = 1;
  #pan = [0, 0];
  #tool = "window";
  #marks = false;
  #lines = new Map();
  #tables = new Map();
  #bitmap = document.createElement("canvas");
  #pixels = null;
  #pointers = new Map();
  #pinch = 0;
  #wheel = 0;
  #cine = null;
  #seenTimer = null;
  #seen = new Set();
  #poll = null;
  #box = null;
  #regions = new Map();
  #begun = null;
  #listening = null;
  #wholeTimer = null;
  #size = [1, 1]; // of the stage; asking the page would lay it out anew at every slice

  connectedCallback() {
    for (const part of this.querySelectorAll("[data-part]")) this.#parts[part.dataset.part] = part;
    const told = JSON.parse(this.#parts.words.textContent);
    this.#words = told.words;
    this.#windows = told.windows;
    this.#frames = new Frames((key) => this.#address(key), (key) => this.#came(key));
    this.#marks = sessionStorage.getItem(MARKS_KEY) === "on";
    this.#listening = new AbortController();
    this.#listen();
    this.dataset.state = "loading";
    this.#parts.scripted.hidden = false;
    this.#load();
  }

  disconnectedCallback() {
    this.#listening.abort();
    this.#frames.stop();
    this.#stopCine();
    clearTimeout(this.#poll);
    clearTimeout(this.#seenTimer);
    clearTimeout(this.#wholeTimer);
  }

  // For pages -----------------------------------------------------------------------------------------------------

  show(series, index) {
    const found = this.#list?.series.find((one) => one.id === series);
    if (found) this.#go(found, index);
  }

  showPicture(id) {
    for (const series of this.#list?.series ?? []) {
      const index = series.pictures.findIndex((picture) => picture.id === id);
      if (index >= 0) this.#go(series, index);
    }
  }

  setRegion(picture, region) {
    this.#regions.set(picture, region);
    if (this.#box && this.#shown?.picture.id === picture) this.#box.load(region);
  }

  renew() {
    this.#lines.clear();
    this.#load();
  }

  get zoom() { return this.#zoom; }

  set zoom(value) { this.#setZoom(value); }

  get shown() { return this.#shown && { series: this.#shown.series.id, index: this.#shown.index, picture: this.#shown.picture.id }; }

  #query() {
    return this.hasAttribute("data-first") ? "?first=1" : "";
  }

  // The list ------------------------------------------------------------------------------------------------------

  async #load() {
    clearTimeout(this.#poll);
    let list = null;
    const query = this.#query();
    try {
      const answer = await fetch(`/studies/${this.dataset.study}/images${query}`);
      if (answer.status === 401) location.reload();
      if (answer.ok) list = await answer.json();
      else if (answer.status === 404) return this.#say(this.#words.none, "empty");
    } catch { /* told below */ }
    if (!this.isConnected || query !== this.#query()) return undefined; // renewed meanwhile
    if (!list) {
      if (!this.#list) this.#say(this.#words.unlisted, "failed");
      this.#poll = setTimeout(() => this.#load(), LIST_AGAIN_MS);
      return undefined;
    }
    const at = this.#shown?.picture.id ?? this.#series?.pictures[this.#index]?.id;
    const before = this.#list;
    this.#list = list;
    if (list.open) this.#poll = setTimeout(() => this.#load(), OPEN_POLL_MS);
    this.#drawSeries();
    this.#parts.marks?.toggleAttribute("hidden", !list.overlay);
    if (!list.series.some((series) => series.pictures.length) || list.note) {
      return this.#say(list.note || this.#words.none, "empty");
    }
    const series = list.series.find((one) => one.pictures.some((picture) => picture.id === at));
    if (before && series) {
      this.#series = series;
      this.#index = series.pictures.findIndex((picture) => picture.id === at);
      if (this.#shown?.picture.id === at) this.#shown = { ...this.#shown, series, index: this.#index, picture: series.pictures[this.#index] };
      this.#drawPlace();
      this.#drawSlider();
      if (this.#shown) {
        this.#drawWindow();
        this.#drawMarks();
      }
      this.#wantAround();
    } else {
      const first = list.series.find((one) => one.pictures.some((picture) => picture.key)) ?? list.series.find((one) => one.pictures.length);
      this.#go(first, first.first);
    }
    return undefined;
  }

  #drawSeries() {
    const { series: box } = this.#parts;
    const several = this.#list.series.length > 1;
    box.toggleAttribute("hidden", !several);
    const old = new Map([...box.children].map((button) => [button.dataset.id, button]));
    box.replaceChildren(...this.#list.series.map((series) => {
      const button = old.get(String(series.id)) ?? document.createElement("button");
      button.type = "button";
      button.className = "iv-chip";
      button.dataset.id = series.id;
      button.dataset.testid = "series";
      const name = [series.modality, series.description].filter(Boolean).join(" · ");
      button.textContent = `${series.number ?? ""} ${name} (${series.pictures.length})`.trim();
      button.setAttribute("aria-pressed", String(series.id === this.#series?.id));
      button.onclick = () => { if (series.id !== this.#series?.id && series.pictures.length) this.#go(this.#fresh(series), series.first); };
      return button;
    }));
  }

  #fresh(series) {
    return this.#list.series.find((one) => one.id === series.id) ?? series;
  }

  // Going places --------------------------------------------------------------------------------------------------

  #go(series, index) {
    const isOther = series.id !== this.#series?.id;
    this.#series = series;
    this.#index = Math.min(Math.max(index, 0), series.pictures.length - 1);
    if (isOther) {
      this.#zoom = 1;
      this.#pan = [0, 0];
      this.#preset = "own";
      this.#window = null;
      this.#inverted = false;
      this.#drawSeries();
      this.#drawSlider();
      this.#drawPresets();
      this.#drawNotes();
    }
    this.#begun = { at: performance.now(), cached: this.#frames.has(this.#key()) };
    this.#wantAround();
    this.#refresh();
  }

  #step(by) {
    this.#go(this.#series, this.#index + by);
  }

  #key(picture = this.#picture, whole = false) {
    return `${this.#series.id}/${picture?.id}${whole ? "?px=0" : "?px=1024"}`;
  }

  #address(key) {
    return `/studies/${this.dataset.study}/images/${key}`;
  }

  get #picture() {
    return this.#series?.pictures[this.#index];
  }

  // The present slice, then those around it, then where the other series begin if they are prepared.
  #wantAround() {
    const { pictures } = this.#series;
    const keys = [];
    if (!this.#picture.gone) keys.push(this.#key());
    if (this.#isCoarse()) keys.push(this.#key(this.#picture, true));
    for (let far = 1; far <= AROUND; far += 1) {
      for (const n of [this.#index + far, this.#index - far]) {
        if (pictures[n] && !pictures[n].gone) keys.push(this.#key(pictures[n]));
      }
    }
    for (const series of this.#list.series) {
      const first = series.pictures[series.first];
      if (series.id !== this.#series.id && first?.ready && !first.gone) keys.push(`${series.id}/${first.id}?px=1024`);
    }
    this.#frames.want(keys);
  }

  #came(key) {
    if (!this.isConnected || !this.#series) return;
    if (key === this.#key() || key === this.#key(this.#picture, true)) this.#refresh();
  }

  // Show the present slice if it is here; say what is going on if it is not. What is painted keeps its own number.
  #refresh() {
    this.#drawPlace();
    const picture = this.#picture;
    const small = this.#frames.get(this.#key());
    const whole = this.#frames.get(this.#key(picture, true));
    if (picture.gone) return this.#say(this.#words.gone, "failed");
    if (!small && !whole) {
      const fault = this.#frames.fault(this.#key());
      if (!fault) return this.#say(picture.ready ? this.#words.loading : this.#words.preparing, "loading");
      if (!fault.text) setTimeout(() => { if (this.isConnected && this.#picture?.id === picture.id) { this.#wantAround(); } }, LIST_AGAIN_MS);
      return this.#say(fault.text || this.#words.failed, "failed");
    }
    const frame = whole ?? small;
    if (this.#shown?.picture.id !== picture.id) this.#box?.load(this.#regions.get(picture.id) ?? null);
    this.#shown = { series: this.#series, picture, index: this.#index, frame };
    this.#say("", "shown");
    this.#paint();
    this.#drawMarks();
    this.#later();
    return undefined;
  }

  #say(text, state) {
    this.dataset.state = state;
    write(this.#parts.state, text);
    this.#parts.state.hidden = !text;
    if (state === "failed" || state === "empty") {
      this.#shown = null;
      this.#clear();
    }
    if (state === "failed" || state === "empty") this.#parts.spoken.textContent = text;
  }

  #later() {
    clearTimeout(this.#seenTimer);
    const { series, index, picture } = this.#shown;
    this.#seenTimer = setTimeout(() => {
      if (document.hidden || this.#shown?.picture.id !== picture.id) return;
      this.#parts.spoken.textContent = this.#tell(this.#words.place, { n: index + 1, total: series.pictures.length })
        + (picture.key ? `, ${this.#words.key}` : "");
      if (this.#isCoarse()) this.#wantAround();
      if (this.#seen.has(picture.id)) return;
      this.#seen.add(picture.id);
      this.#emit("seen", { series: series.id, index, picture: picture.id, frame: picture.frame });
    }, SEEN_MS);
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(`image-view:${name}`, { bubbles: true, detail }));
  }

  #tell(text, values) {
    return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  }

  // Painting ------------------------------------------------------------------------------------------------------

  get #meta() { return this.#shown?.frame.meta; }

  #present() {
    return this.#window ?? ownWindow(this.#meta);
  }

  #paint() {
    const { frame } = this.#shown;
    const { width, height, meta } = frame;
    if (this.#bitmap.width !== width || this.#bitmap.height !== height || !this.#pixels) {
      this.#bitmap.width = width;
      this.#bitmap.height = height;
      this.#pixels = new ImageData(width, height);
    }
    const window = this.#present();
    let colours = null;
    if (meta.type !== "rgb") {
      const name = [meta.type, meta.slope, meta.intercept, meta.inverted, this.#inverted, window.centre, window.width, window.kind].join();
      colours = this.#tables.get(name);
      if (!colours) {
        if (this.#tables.size > 16) this.#tables.clear();
        colours = table(meta, window, this.#inverted);
        this.#tables.set(name, colours);
      }
    }
    paint(frame, colours, this.#pixels.data);
    this.#bitmap.getContext("2d").putImageData(this.#pixels, 0, 0);
    this.#draw();
    this.#drawWindow();
    this.#measure();
  }

  // Where the picture lies on the stage, in CSS pixels of the stage: original pixel (0, 0) at (x, y).
  #view() {
    const { cols, rows, aspect } = this.#meta;
    const [width, height] = this.#size;
    const sx = Math.min(width / cols, height / (rows * aspect)) * this.#zoom;
    const sy = sx * aspect;
    return { x: (width - cols * sx) / 2 + this.#pan[0], y: (height - rows * sy) / 2 + this.#pan[1], sx, sy, cols, rows };
  }

  #draw() {
    const { canvas, stage } = this.#parts;
    const ratio = globalThis.devicePixelRatio || 1;
    const size = this.#size.map((side) => Math.round(side * ratio));
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    const pen = canvas.getContext("2d", { alpha: false });
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    if (!this.#shown) return;
    const view = this.#view();
    const { width, height } = this.#shown.frame;
    pen.setTransform((ratio * view.sx * view.cols) / width, 0, 0, (ratio * view.sy * view.rows) / height, ratio * view.x, ratio * view.y);
    pen.imageSmoothingEnabled = true;
    pen.imageSmoothingQuality = "medium";
    pen.drawImage(this.#bitmap, 0, 0);
    stage.dataset.painted = this.#shown.picture.id;
    stage.dataset.whole = String(!this.#isReduced());
    this.dataset.zoom = this.#zoom;
    this.#parts.group?.setAttribute("transform", `matrix(${view.sx} 0 0 ${view.sy} ${view.x} ${view.y})`);
    this.#box?.draw(view);
    this.#drawEdges();
    this.#drawScale(view);
  }

  #clear() {
    this.#parts.stage.dataset.painted = "";
    this.#draw();
    this.#box?.draw(null);
    for (const name of ["left", "right", "top", "bottom", "window", "about", "at"]) this.#parts[name].textContent = "";
    this.#parts.scale.hidden = true;
    this.#parts.lines?.replaceChildren();
  }

  #isReduced() {
    return Boolean(this.#shown && this.#shown.frame.width < this.#meta.cols);
  }

  #isCoarse() {
    if (this.#shown?.picture.id !== this.#picture?.id || !this.#isReduced()) return false;
    const ratio = globalThis.devicePixelRatio || 1;
    return (this.#view().sx * ratio * this.#meta.cols) / this.#shown.frame.width > COARSE;
  }

  // How long it took from the wish to what the eye sees, for whoever watches performance entries.
  #measure() {
    const begun = this.#begun;
    if (!begun) return;
    this.#begun = null;
    requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => {
        const name = `image-view:${begun.cached ? "cached" : "fetched"}`;
        if (performance.getEntriesByName(name).length >= MOST_MEASURES) performance.clearMeasures(name);
        performance.measure(name, { start: begun.at, end: performance.now() });
      };
      channel.port2.postMessage(0);
    });
  }

  // What stands around the picture --------------------------------------------------------------------------------

  #drawPlace() {
    const { slider, place, keyButton, cine } = this.#parts;
    const total = this.#series.pictures.length;
    slider.max = Math.max(total - 1, 0);
    slider.value = this.#index;
    const words = this.#tell(this.#words.place, { n: this.#index + 1, total });
    slider.setAttribute("aria-valuetext", words);
    write(place, `${this.#index + 1} / ${total}`);
    this.#parts.scroll.hidden = total < 2;
    cine.disabled = total < 2;
    keyButton.disabled = !this.#series.pictures.some((picture) => picture.key);
  }

  #drawSlider() {
    const total = this.#series.pictures.length;
    this.#parts.ticks.replaceChildren(...this.#series.pictures.flatMap((picture, n) => {
      if (!picture.key) return [];
      const tick = document.createElement("i");
      tick.style.left = `${total > 1 ? (100 * n) / (total - 1) : 50}%`;
      return [tick];
    }));
  }

  #drawPresets() {
    const { presets } = this.#parts;
    const isCt = this.#series.modality === "CT";
    const options = [
      ["own", this.#words.own],
      ...(isCt ? this.#windows.map(([label], n) => [String(n), `${n + 1} ${label}`]) : []),
      ["auto", isCt ? `6 ${this.#words.auto}` : this.#words.auto],
      ["hand", this.#words.hand],
    ];
    presets.replaceChildren(...options.map(([value, text]) => {
      const option = document.createElement("option");
      option.value = value;
      option.textContent = text;
      option.hidden = value === "hand";
      return option;
    }));
    presets.value = this.#preset;
  }

  #drawNotes() {
    this.#parts.notes.replaceChildren(...this.#series.notes.map((text) => {
      const line = document.createElement("p");
      line.textContent = text;
      return line;
    }));
  }

  #drawWindow() {
    const { window: text, presets, about } = this.#parts;
    const { meta } = this.#shown.frame;
    if (meta.type === "rgb") {
      write(text, this.#words.colour);
    } else {
      const { centre, width } = this.#present();
      const round = (value) => (Math.abs(value) >= 10 ? Math.round(value) : Number(value.toPrecision(3)));
      write(text, this.#tell(this.#words.window, { c: round(centre), w: round(width) })
        + (this.#inverted ? ` · ${this.#words.inverted}` : ""));
    }
    presets.value = this.#preset;
    presets.disabled = meta.type === "rgb";
    this.#parts.invert.setAttribute("aria-pressed", String(this.#inverted));
    const { picture, index, series } = this.#shown;
    const named = picture.frame ? [this.#words.frame, picture.frame] : [this.#words.number, picture.number];
    write(this.#parts.at, [
      `${index + 1} / ${series.pictures.length}`,
      named[1] === null ? "" : this.#tell(named[0], { n: named[1] }),
      picture.key ? this.#words.key : "",
    ].filter(Boolean).join(" · "));
    const side = { L: this.#words.left, R: this.#words.right, B: this.#words.both }[meta.laterality];
    write(about, [this.#series.description || this.#series.modality, meta.view, side].filter(Boolean).join(" · ")
      + (meta.doubtful ? ` · ${this.#words.doubtful}` : ""));
  }

  #drawEdges() {
    for (const [edge, word] of Object.entries(edges(this.#meta))) write(this.#parts[edge], word);
  }

  #drawScale(view) {
    const { scale, scaleBar, scaleText } = this.#parts;
    const { spacing, spacing_at: at } = this.#meta;
    const perMm = spacing && at ? view.sx / spacing[1] : 0;
    const length = perMm ? scaleLength(perMm, this.#size[0] / 4) : 0;
    scale.hidden = !length;
    if (!length) return;
    scaleBar.style.width = `${length * perMm}px`;
    write(scaleText, `${length} mm${at === "detector" ? ` ${this.#words.detector}` : ""}`);
  }

  // Marks: only where the box says that something may be drawn ------------------------------------------------------

  #layer() {
    if (this.#parts.layer) return;
    const layer = document.createElementNS(SVG, "svg");
    layer.classList.add("iv-layer");
    layer.dataset.layer = "overlay";
    layer.setAttribute("aria-hidden", "true");
    this.#parts.group = document.createElementNS(SVG, "g");
    layer.append(this.#parts.group);
    this.#parts.canvas.after(layer);
    Object.assign(this.#parts, { layer, lines: this.#parts.group });
  }

  async #drawMarks() {
    if (!this.#list.overlay) return;
    this.#layer();
    const isOn = this.#marks;
    this.#parts.marks.setAttribute("aria-pressed", String(isOn));
    this.#parts.layer.toggleAttribute("hidden", !isOn);
    if (!isOn) return;
    const { picture, series } = this.#shown;
    const told = this.#lines.get(picture.id);
    if (!told) {
      this.#parts.lines.replaceChildren();
      this.#lines.set(picture.id, "asked");
      await this.#fetchLines(series, picture);
      return;
    }
    if (told === "asked") return this.#parts.lines.replaceChildren();
    const view = this.#view();
    this.#parts.group.setAttribute("transform", `matrix(${view.sx} 0 0 ${view.sy} ${view.x} ${view.y})`);
    this.#parts.lines.replaceChildren(...told.flatMap(({ points, title, finding }) => {
      const shape = document.createElementNS(SVG, points.length === 1 ? "circle" : "polyline");
      if (points.length === 1) {
        shape.setAttribute("cx", points[0][0]);
        shape.setAttribute("cy", points[0][1]);
        shape.setAttribute("r", 12);
      } else {
        shape.setAttribute("points", points.map((point) => point.join(",")).join(" "));
      }
      shape.dataset.finding = finding;
      const name = document.createElementNS(SVG, "title");
      name.textContent = title;
      shape.append(name);
      return [shape];
    }));
  }

  async #fetchLines(series, picture) {
    try {
      const answer = await fetch(`/studies/${this.dataset.study}/images/${series.id}/${picture.id}/overlay${this.#query()}`);
      if (answer.status === 202) throw new Error("not yet");
      this.#lines.set(picture.id, answer.ok ? (await answer.json()).lines : []);
    } catch {
      this.#lines.delete(picture.id);
      setTimeout(() => { if (this.#shown?.picture.id === picture.id) this.#drawMarks(); }, LIST_AGAIN_MS);
      return;
    }
    if (this.#shown?.picture.id === picture.id) this.#drawMarks();
  }

  // Acts ----------------------------------------------------------------------------------------------------------

  #setZoom(value, at = null) {
    const zoom = Math.min(Math.max(value, LEAST_ZOOM), MOST_ZOOM);
    if (at) {
      // What is under the finger stays under it.
      const centre = this.#size.map((side) => side / 2);
      this.#pan = this.#pan.map((pan, n) => at[n] - centre[n] - ((at[n] - centre[n] - pan) * zoom) / this.#zoom);
    }
    this.#zoom = zoom;
    if (zoom === 1) this.#pan = [0, 0];
    if (!this.#shown) return;
    this.#draw();
    clearTimeout(this.#wholeTimer);
    if (this.#isCoarse()) this.#wholeTimer = setTimeout(() => this.#wantAround(), 150);
  }

  #setPreset(name) {
    this.#preset = name;
    const picked = this.#windows[Number(name)];
    if (name === "auto" && this.#meta?.auto) {
      this.#window = { centre: this.#meta.auto[0], width: this.#meta.auto[1], kind: "LINEAR_EXACT" };
    } else {
      this.#window = picked ? { centre: picked[1], width: picked[2], kind: "LINEAR" } : null;
    }
    if (this.#shown) this.#paint();
  }

  #dragWindow(dx, dy) {
    if (!this.#shown || this.#meta.type === "rgb") return;
    const { centre, width, kind } = this.#present();
    const [low, high] = this.#meta.range;
    const step = Math.max(width, (high - low) / 64) / 300;
    this.#window = { centre: centre + dy * step, width: Math.max(width + dx * step, kind === "LINEAR" ? 1 : 1e-3), kind };
    this.#preset = "hand";
    this.#soon(() => this.#paint());
  }

  #soon(draw) {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      if (this.#shown) draw();
    });
  }

  #reset() {
    this.#zoom = 1;
    this.#pan = [0, 0];
    this.#inverted = false;
    this.#setPreset("own");
  }

  #invert() {
    this.#inverted = !this.#inverted;
    if (this.#shown) this.#paint();
  }

  #toggleMarks() {
    if (!this.#list?.overlay) return;
    this.#marks = !this.#marks;
    sessionStorage.setItem(MARKS_KEY, this.#marks ? "on" : "off");
    if (this.#shown) this.#drawMarks();
  }

  #nextKey() {
    const keys = this.#series.pictures.flatMap((picture, n) => (picture.key ? [n] : []));
    if (keys.length) this.#go(this.#series, keys.find((n) => n > this.#index) ?? keys[0]);
  }

  #toggleCine() {
    if (this.#cine) return this.#stopCine();
    if (!this.#series || this.#series.pictures.length < 2) return undefined;
    this.#parts.cine.setAttribute("aria-pressed", "true");
    this.#cine = setInterval(() => {
      const next = (this.#index + 1) % this.#series.pictures.length;
      // It waits for a slice rather than leave it out.
      if (this.dataset.state !== "loading") this.#go(this.#series, next);
    }, CINE_MS);
    return undefined;
  }

  #stopCine() {
    clearInterval(this.#cine);
    this.#cine = null;
    this.#parts.cine?.setAttribute("aria-pressed", "false");
  }

  #setTool(name) {
    this.#tool = name;
    this.dataset.tool = name;
    for (const button of this.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === name));
  }

  // Hands ---------------------------------------------------------------------------------------------------------

  #listen() {
    const { signal } = this.#listening;
    const on = (target, name, call, options = {}) => target.addEventListener(name, call, { signal, ...options });
    const { stage, slider, presets } = this.#parts;
    if (this.hasAttribute("editable")) {
      this.#box = new Box(stage, this.#words.box, (value) => this.#region(value));
      this.#parts.draw.hidden = false;
    }
    const acts = {
      invert: () => this.#invert(), marks: () => this.#toggleMarks(), keyButton: () => this.#nextKey(), cine: () => this.#toggleCine(),
      closer: () => this.#setZoom(this.#zoom * 1.5), farther: () => this.#setZoom(this.#zoom / 1.5), reset: () => this.#reset(),
      before: () => this.#step(-1), after: () => this.#step(1),
    };
    for (const [name, act] of Object.entries(acts)) {
      on(this.#parts[name], "click", () => {
        if (name !== "cine") this.#stopCine();
        if (this.#series) act();
      });
    }
    for (const button of this.querySelectorAll("[data-tool]")) on(button, "click", () => this.#setTool(button.dataset.tool));
    on(slider, "input", () => { this.#stopCine(); this.#go(this.#series, Number(slider.value)); });
    on(presets, "change", () => this.#setPreset(presets.value));
    on(stage, "wheel", (wheel) => this.#turned(wheel), { passive: false });
    on(stage, "pointerdown", (pointer) => this.#down(pointer));
    on(stage, "pointermove", (pointer) => this.#moved(pointer));
    for (const name of ["pointerup", "pointercancel"]) on(stage, name, (pointer) => this.#up(pointer));
    on(stage, "dblclick", () => this.#reset());
    on(stage, "contextmenu", (click) => click.preventDefault());
    on(document, "keydown", (key) => this.#pressed(key));
    on(document.body, "scanside:facts", (fact) => {
      if (fact.detail.studies.includes(Number(this.dataset.study))) this.#load();
    });
    const measure = () => { this.#size = [stage.clientWidth, stage.clientHeight]; };
    const watch = new ResizeObserver(() => { measure(); if (this.#shown) this.#draw(); });
    measure();
    watch.observe(stage);
    signal.addEventListener("abort", () => watch.disconnect());
    this.#setTool("window");
  }

  #region(value) {
    if (!this.#shown) return;
    const { series, index, picture } = this.#shown;
    this.#regions.set(picture.id, value);
    this.#emit("region", {
      series: series.id, index, picture: picture.id, frame: picture.frame, ...(value ?? { x: null, y: null, w: null, h: null }),
    });
  }

  #turned(wheel) {
    wheel.preventDefault();
    if (!this.#series) return;
    this.#stopCine();
    if (wheel.ctrlKey || this.#series.pictures.length < 2) {
      this.#setZoom(this.#zoom * Math.exp(-wheel.deltaY / 400), this.#on(wheel));
      return;
    }
    this.#wheel += wheel.deltaMode === 0 ? wheel.deltaY : wheel.deltaY * WHEEL_PX;
    const steps = Math.trunc(this.#wheel / WHEEL_PX);
    if (!steps) return;
    this.#wheel -= steps * WHEEL_PX;
    this.#step(steps);
  }

  #on(pointer) {
    const at = this.#parts.stage.getBoundingClientRect();
    return [pointer.clientX - at.left, pointer.clientY - at.top];
  }

  #down(pointer) {
    if (!this.#shown || pointer.target.closest("button")) return;
    this.#stopCine();
    this.#parts.stage.setPointerCapture(pointer.pointerId);
    this.#pointers.set(pointer.pointerId, this.#on(pointer));
    this.#pinch = 0;
    if (this.#pointers.size === 1 && this.#tool === "draw" && pointer.button === 0) this.#box.begin(...this.#on(pointer));
  }

  #moved(pointer) {
    const before = this.#pointers.get(pointer.pointerId);
    if (!before || !this.#shown) return;
    const at = this.#on(pointer);
    const [dx, dy] = [at[0] - before[0], at[1] - before[1]];
    this.#pointers.set(pointer.pointerId, at);
    if (this.#pointers.size > 1) {
      // Two fingers: closer, farther, and along.
      const [one, other] = [...this.#pointers.values()];
      const apart = Math.hypot(one[0] - other[0], one[1] - other[1]);
      if (this.#pinch) this.#setZoom((this.#zoom * apart) / this.#pinch, [(one[0] + other[0]) / 2, (one[1] + other[1]) / 2]);
      this.#pinch = apart;
      this.#move(dx / 2, dy / 2);
    } else if (this.#tool === "draw" && pointer.buttons === 1) {
      this.#box.move(...at);
    } else if (this.#tool === "move" || pointer.buttons !== 1 || pointer.shiftKey) {
      this.#move(dx, dy);
    } else {
      this.#dragWindow(dx, dy);
    }
  }

  #move(dx, dy) {
    this.#pan = [this.#pan[0] + dx, this.#pan[1] + dy];
    this.#soon(() => this.#draw());
  }

  #up(pointer) {
    this.#pointers.delete(pointer.pointerId);
    this.#pinch = 0;
    this.#box?.end();
  }

  #pressed(key) {
    if (key.defaultPrevented || !this.#series || !this.isConnected) return;
    const { target } = key;
    if (target.closest("dialog[open], textarea, select, [contenteditable]") || target.closest("input:not([type=range])")) return;
    if (key.ctrlKey && !key.metaKey && !key.altKey && key.key.toLowerCase() === "z" && this.#box) {
      this.#box.undo();
      key.preventDefault();
      return;
    }
    if (key.ctrlKey || key.metaKey || key.altKey) return;
    if (target.closest("input[type=range]") && !["i", "I", "o", "O", "k", "K"].includes(key.key)) return;
    if (key.key === " " && target.closest("button, a, summary")) return;
    const ends = { Home: 0, End: this.#series.pictures.length - 1 };
    const steps = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -10, PageDown: 10 };
    const acts = {
      i: () => this.#invert(), o: () => this.#toggleMarks(), k: () => this.#nextKey(), " ": () => this.#toggleCine(),
      "+": () => this.#setZoom(this.#zoom * 1.5), "=": () => this.#setZoom(this.#zoom * 1.5), "-": () => this.#setZoom(this.#zoom / 1.5),
      0: () => this.#reset(), b: () => this.#box && this.#shown && this.#box.place(),
    };
    const name = key.key.length === 1 ? key.key.toLowerCase() : key.key;
    if (name !== " ") this.#stopCine();
    if (name in steps && this.#series.pictures.length > 1) this.#step(steps[name]);
    else if (name in ends && this.#series.pictures.length > 1) this.#go(this.#series, ends[name]);
    else if (name in acts) acts[name]();
    else if (/^[1-6]$/.test(name) && (this.#series.modality === "CT" || name === "6")) this.#setPreset(name === "6" ? "auto" : String(Number(name) - 1));
    else return;
    key.preventDefault();
  }
}

customElements.define("image-view", ImageView);
