// What hands do: buttons, pointers and the wheel on the stage, keys anywhere on the page. What it means is the Reader's.
const WHEEL_PX = 40;
const CLOSER = 1.5;
const ALSO_AT_SLIDER = new Set(["i", "o", "k"]);
const STEPS = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -10, PageDown: 10 };

export class Hands {
  #host;
  #stage;
  #reader;
  #tool = "window";
  #pointers = new Map();
  #apart = 0;
  #turned = 0;

  constructor(host, parts, reader, signal) {
    const { stage, slider, presets } = parts;
    this.#host = host;
    this.#stage = stage;
    this.#reader = reader;
    const on = (target, name, call, options = {}) => target.addEventListener(name, call, { signal, ...options });
    for (const button of host.querySelectorAll("[data-tool]")) on(button, "click", () => this.#setTool(button.dataset.tool));
    const buttons = {
      invert: () => reader.invert(), marks: () => reader.toggleMarks(), keyButton: () => reader.goToKey(),
      cine: () => reader.play(), reset: () => reader.reset(), before: () => reader.step(-1), after: () => reader.step(1),
      closer: () => reader.zoomTo(reader.zoom * CLOSER), farther: () => reader.zoomTo(reader.zoom / CLOSER),
    };
    for (const [name, act] of Object.entries(buttons)) {
      on(parts[name], "click", () => {
        if (name !== "cine") reader.still();
        if (reader.isReady) act();
      });
    }
    on(slider, "input", () => { reader.still(); reader.goTo(Number(slider.value)); });
    on(presets, "change", () => reader.pick(presets.value));
    on(stage, "wheel", (wheel) => this.#wheel(wheel), { passive: false });
    on(stage, "pointerdown", (pointer) => this.#down(pointer));
    on(stage, "pointermove", (pointer) => this.#moved(pointer));
    for (const name of ["pointerup", "pointercancel"]) on(stage, name, (pointer) => this.#up(pointer));
    on(stage, "dblclick", () => reader.reset());
    on(stage, "contextmenu", (click) => click.preventDefault());
    on(document, "keydown", (key) => this.#pressed(key));
    this.#setTool("window");
  }

  #setTool(name) {
    this.#tool = name;
    this.#host.dataset.tool = name;
    for (const button of this.#host.querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === name));
    }
  }

  #wheel(wheel) {
    const reader = this.#reader;
    wheel.preventDefault();
    if (!reader.isReady) return;
    reader.still();
    if (wheel.ctrlKey || reader.length < 2) {
      reader.zoomTo(reader.zoom * Math.exp(-wheel.deltaY / 400), reader.at(wheel));
      return;
    }
    this.#turned += wheel.deltaMode === 0 ? wheel.deltaY : wheel.deltaY * WHEEL_PX;
    const steps = Math.trunc(this.#turned / WHEEL_PX);
    if (!steps) return;
    this.#turned -= steps * WHEEL_PX;
    reader.step(steps);
  }

  #down(pointer) {
    const reader = this.#reader;
    if (!reader.isShown || pointer.target.closest("button")) return;
    reader.still();
    this.#stage.setPointerCapture(pointer.pointerId);
    this.#pointers.set(pointer.pointerId, reader.at(pointer));
    this.#apart = 0;
    if (this.#pointers.size === 1 && this.#tool === "draw" && pointer.button === 0) reader.box.begin(...reader.at(pointer));
  }

  #moved(pointer) {
    const reader = this.#reader;
    const before = this.#pointers.get(pointer.pointerId);
    if (!before || !reader.isShown) return;
    const at = reader.at(pointer);
    const [dx, dy] = [at[0] - before[0], at[1] - before[1]];
    this.#pointers.set(pointer.pointerId, at);
    if (this.#pointers.size > 1) {
      // Two fingers: closer, farther, and along.
      const [one, other] = [...this.#pointers.values()];
      const apart = Math.hypot(one[0] - other[0], one[1] - other[1]);
      if (this.#apart) reader.zoomTo((reader.zoom * apart) / this.#apart, [(one[0] + other[0]) / 2, (one[1] + other[1]) / 2]);
      this.#apart = apart;
      reader.move(dx / 2, dy / 2);
    } else if (this.#tool === "draw" && pointer.buttons === 1) {
      reader.box.move(...at);
    } else if (this.#tool === "move" || pointer.buttons !== 1 || pointer.shiftKey) {
      reader.move(dx, dy);
    } else {
      reader.dragWindow(dx, dy);
    }
  }

  #up(pointer) {
    this.#pointers.delete(pointer.pointerId);
    this.#apart = 0;
    this.#reader.box?.end();
  }

  #pressed(key) {
    const reader = this.#reader;
    if (key.defaultPrevented || !reader.isReady) return;
    const { target } = key;
    if (target.closest("dialog[open], textarea, select, [contenteditable]") || target.closest("input:not([type=range])")) return;
    if (key.ctrlKey && !key.metaKey && !key.altKey && key.key.toLowerCase() === "z" && reader.box) {
      reader.box.undo();
      key.preventDefault();
      return;
    }
    if (key.ctrlKey || key.metaKey || key.altKey) return;
    const name = key.key.length === 1 ? key.key.toLowerCase() : key.key;
    if (target.closest("input[type=range]") && !ALSO_AT_SLIDER.has(name)) return;
    if (name === " " && target.closest("button, a, summary")) return;
    const many = reader.length > 1;
    const ends = { Home: 0, End: reader.length - 1 };
    const acts = {
      i: () => reader.invert(), o: () => reader.toggleMarks(), k: () => reader.goToKey(), " ": () => reader.play(),
      "+": () => reader.zoomTo(reader.zoom * CLOSER), "=": () => reader.zoomTo(reader.zoom * CLOSER),
      "-": () => reader.zoomTo(reader.zoom / CLOSER), 0: () => reader.reset(), b: () => reader.placeBox(),
    };
    if (name !== " ") reader.still();
    if (many && name in STEPS) reader.step(STEPS[name]);
    else if (many && name in ends) reader.goTo(ends[name]);
    else if (Object.hasOwn(acts, name)) acts[name]();
    else if (/^[1-6]$/.test(name) && (reader.isCt || name === "6")) reader.pick(name === "6" ? "auto" : String(Number(name) - 1));
    else return;
    key.preventDefault();
  }
}
