// Where a reader is in a study and what they do there: the slice that is wanted, the slice that is painted, and acts.
import { drawAbout, drawNotes, drawPlace, drawSeries, drawTicks } from "./image-around.js";
import { Box } from "./image-box.js";
import { ImageList } from "./image-list.js";
import { Marks } from "./image-marks.js";
import { Cine, Wish, painted } from "./image-pace.js";
import { Frames } from "./image-pixels.js";
import { Stack } from "./image-stack.js";
import { Stage } from "./image-stage.js";
import { tell, write } from "./image-text.js";
import { Windows } from "./image-windows.js";

const SEEN_MS = 300;
const AGAIN_MS = 3000;
const WHOLE_MS = 150;

export class Reader {
  #host;
  #parts;
  #words;
  #stack = new Stack();
  #stage;
  #windows;
  #frames;
  #marks;
  #list;
  #cine;
  #shown = null; // what is painted: {series, picture, index, frame}
  #wish = null; // that is not painted yet
  #seen = new Set();
  #regions = new Map();
  #timers = { seen: 0, whole: 0 };
  box = null; // where one may be drawn

  // told: {words, windows} of the page; signal: when the page is left.
  constructor(host, parts, { words, windows }, signal) {
    this.#host = host;
    this.#parts = parts;
    this.#words = words;
    const root = `/studies/${host.dataset.study}/images`;
    const query = () => (host.hasAttribute("data-first") ? "?first=1" : "");
    this.#list = new ImageList(() => root + query(), (list) => this.#take(list));
    this.#frames = new Frames((key) => `${root}/${key}`, (key) => this.#came(key));
    this.#marks = new Marks(parts, (picture) => `${root}/${this.#shown.series.id}/${picture.id}/overlay${query()}`);
    this.#windows = new Windows(parts, words, windows);
    this.#cine = new Cine(parts.cine, () => this.#play());
    this.#stage = new Stage(host, parts, words, (view) => {
      this.#marks.place(view);
      this.box?.draw(view);
    });
    this.#stage.watch(signal);
    if (!host.hasAttribute("editable")) return;
    this.box = new Box(parts.stage, words.box, (value) => this.#region(value));
    parts.draw.hidden = false;
  }

  // Ask for the list, perhaps anew.
  ask() {
    this.#list.ask();
  }

  // What was told of the AI holds no more.
  renew() {
    this.#marks.forget();
    this.#list.ask();
  }

  setRegion(picture, region) {
    this.#regions.set(picture, region);
    if (this.#shown?.picture.id === picture) this.box?.load(region);
  }

  stop() {
    this.#frames.stop();
    this.#list.stop();
    this.#cine.stop();
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
  }

  // The list ------------------------------------------------------------------------------------------------------

  // A list that came, or none: the reader stays at the slice where they are, or where they were going.
  #take(list) {
    const stack = this.#stack;
    if (!list) return stack.list ? undefined : this.#say(this.#words.unlisted, "failed");
    const at = stack.picture?.id;
    stack.list = list;
    this.#drawSeries();
    this.#marks.allow(list.overlay);
    if (stack.isEmpty || list.note) return this.#say(list.note || this.#words.none, "empty");
    const found = stack.find(at);
    if (!found) {
      const first = stack.begin();
      return this.#go(first, first.first);
    }
    stack.go(found.series, found.index);
    drawPlace(this.#parts, this.#words, stack);
    drawTicks(this.#parts, stack.series);
    const there = this.#shown && stack.find(this.#shown.picture.id);
    if (there) {
      this.#shown = { ...this.#shown, ...there, picture: there.series.pictures[there.index] };
      this.#drawWords();
      this.#marks.show(this.#shown.picture);
    }
    return this.#want();
  }

  #drawSeries() {
    const stack = this.#stack;
    drawSeries(this.#parts.series, stack.list, stack.series, (series) => {
      if (series.id !== stack.series?.id && series.pictures.length) this.#go(stack.fresh(series), series.first);
    });
  }

  // Going places --------------------------------------------------------------------------------------------------

  #go(series, index) {
    const stack = this.#stack;
    if (stack.go(series, index)) {
      this.#stage.fit();
      this.#windows.reset();
      this.#windows.offer(series.modality);
      this.#drawSeries();
      drawTicks(this.#parts, series);
      drawNotes(this.#parts, series);
    }
    const isHere = this.#frames.has(stack.key());
    this.#wish = new Wish(isHere);
    if (!isHere) this.#want();
    this.#refresh();
    // Of a slice that is here, asking for those around it would only delay the paint.
    if (isHere) painted(() => this.#want());
  }

  #want() {
    if (this.#host.isConnected) this.#frames.want(this.#stack.wanted(this.#isCoarse));
  }

  // Whether the screen could show more of the present slice than is here.
  get #isCoarse() {
    return this.#shown?.picture.id === this.#stack.picture?.id && this.#stage.isCoarse;
  }

  #came(key) {
    const stack = this.#stack;
    if (!this.isReady) return;
    if (key === stack.key() || key === stack.key(stack.picture, true)) this.#refresh();
  }

  // Show the present slice if it is here; say what is going on if it is not. What is painted keeps its own number.
  #refresh() {
    const { series, picture, index } = this.#stack;
    drawPlace(this.#parts, this.#words, this.#stack);
    if (picture.gone) return this.#say(this.#words.gone, "failed");
    const key = this.#stack.key();
    const small = this.#frames.get(key);
    const frame = this.#frames.get(this.#stack.key(picture, true)) ?? small;
    if (!frame) {
      const fault = this.#frames.fault(key);
      if (!fault) return this.#say(picture.ready ? this.#words.loading : this.#words.preparing, "loading");
      if (!fault.text) setTimeout(() => { if (this.#stack.picture?.id === picture.id) this.#want(); }, AGAIN_MS);
      return this.#say(fault.text || this.#words.failed, "failed");
    }
    if (this.#shown?.picture.id !== picture.id) this.box?.load(this.#regions.get(picture.id) ?? null);
    this.#shown = { series, picture, index, frame };
    this.#say("", "shown");
    this.#paint();
    this.#marks.show(picture);
    return this.#later();
  }

  #say(text, state) {
    this.#host.dataset.state = state;
    write(this.#parts.state, text);
    this.#parts.state.hidden = !text;
    if (state !== "failed" && state !== "empty") return;
    this.#shown = null;
    this.#marks.show(null);
    this.#stage.clear();
    this.#parts.spoken.textContent = text;
  }

  // When the eye has had it for a while.
  #later() {
    clearTimeout(this.#timers.seen);
    const { series, index, picture } = this.#shown;
    this.#timers.seen = setTimeout(() => {
      if (document.hidden || this.#shown?.picture.id !== picture.id) return;
      this.#parts.spoken.textContent = tell(this.#words.place, { n: index + 1, total: series.pictures.length })
        + (picture.key ? `, ${this.#words.key}` : "");
      if (this.#isCoarse) this.#want();
      if (this.#seen.has(picture.id)) return;
      this.#seen.add(picture.id);
      this.#emit("seen", { series: series.id, index, picture: picture.id, frame: picture.frame });
    }, SEEN_MS);
  }

  #emit(name, detail) {
    this.#host.dispatchEvent(new CustomEvent(`image-view:${name}`, { bubbles: true, detail }));
  }

  #region(value) {
    if (!this.#shown) return;
    const { series, index, picture } = this.#shown;
    this.#regions.set(picture.id, value);
    this.#emit("region", {
      series: series.id, index, picture: picture.id, frame: picture.frame, ...(value ?? { x: null, y: null, w: null, h: null }),
    });
  }

  #paint() {
    const { frame, picture } = this.#shown;
    this.#stage.show(picture.id, frame, this.#windows.of(frame.meta), this.#windows.inverted);
    this.#drawWords();
    this.#wish?.fulfil();
    this.#wish = null;
  }

  #drawWords() {
    this.#windows.draw(this.#shown.frame.meta);
    drawAbout(this.#parts, this.#words, this.#shown);
  }

  #play() {
    // It waits for a slice rather than leave it out.
    if (this.#host.dataset.state !== "loading") this.goTo((this.#stack.index + 1) % this.#stack.length);
  }

  // What hands ask and do -----------------------------------------------------------------------------------------

  get isReady() { return Boolean(this.#host.isConnected && this.#stack.series); }

  get isShown() { return Boolean(this.#shown); }

  get isCt() { return this.#stack.series?.modality === "CT"; }

  get length() { return this.#stack.length; }

  get zoom() { return this.#stage.zoom; }

  at(pointer) { return this.#stage.at(pointer); }

  goTo(index) { this.#go(this.#stack.series, index); }

  step(by) { this.goTo(this.#stack.index + by); }

  goToKey() {
    const next = this.#stack.nextKey();
    if (next !== undefined) this.goTo(next);
  }

  play() { if (this.length > 1) this.#cine.toggle(); }

  still() { this.#cine.stop(); }

  zoomTo(value, at = null) {
    this.#stage.setZoom(value, at);
    clearTimeout(this.#timers.whole);
    if (this.#isCoarse) this.#timers.whole = setTimeout(() => this.#want(), WHOLE_MS);
  }

  move(dx, dy) { this.#stage.move(dx, dy); }

  pick(name) {
    this.#windows.pick(name, this.#shown?.frame.meta);
    if (this.#shown) this.#paint();
  }

  dragWindow(dx, dy) {
    const meta = this.#shown?.frame.meta;
    if (!meta || meta.type === "rgb") return;
    this.#windows.drag(dx, dy, meta);
    this.#stage.soon(() => this.#paint());
  }

  invert() {
    this.#windows.inverted = !this.#windows.inverted;
    if (this.#shown) this.#paint();
  }

  reset() {
    this.#stage.fit();
    this.#windows.reset();
    if (this.#shown) this.#paint();
  }

  toggleMarks() { this.#marks.toggle(); }

  placeBox() { if (this.#shown) this.box?.place(); }
}
