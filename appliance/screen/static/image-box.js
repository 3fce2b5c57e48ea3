// One box on the picture that a reader draws, moves and resizes: whole pixels, undone by Ctrl+Z, also by keys alone.
const SVG = "http://www.w3.org/2000/svg";
const HANDLE_PX = 11; // half a side: a finger hits it
const CORNERS = [[0, 0], [1, 0], [0, 1], [1, 1]];

export class Box {
  #layer = document.createElementNS(SVG, "svg");
  #shape = document.createElementNS(SVG, "rect");
  #handles = CORNERS.map(() => document.createElementNS(SVG, "rect"));
  #told;
  #past = [];
  #drag = null;
  #view = null;
  #before = null; // where the keyboard was
  value = null; // {x, y, w, h} in pixels of the image

  // told(value) is called after every change; value is null where the box is gone.
  constructor(stage, label, told) {
    this.#told = told;
    this.#layer.classList.add("iv-layer", "iv-edit");
    this.#layer.dataset.layer = "edit";
    this.#shape.classList.add("iv-box");
    this.#shape.setAttribute("tabindex", "0");
    this.#shape.setAttribute("role", "img");
    this.#shape.setAttribute("aria-label", label);
    for (const handle of this.#handles) handle.classList.add("iv-handle");
    this.#layer.append(this.#shape, ...this.#handles);
    stage.append(this.#layer);
    this.#shape.addEventListener("keydown", (key) => this.#key(key));
    this.draw(null);
  }

  // Where the picture lies on the stage: {x, y, sx, sy, cols, rows}; null hides the box.
  draw(view) {
    this.#view = view;
    const isShown = Boolean(view && this.value);
    this.#layer.toggleAttribute("hidden", !isShown);
    if (!isShown) return;
    const { x, y, w, h } = this.value;
    const [left, top] = [view.x + x * view.sx, view.y + y * view.sy];
    place(this.#shape, left, top, w * view.sx, h * view.sy);
    this.#handles.forEach((handle, n) => {
      const [across, down] = CORNERS[n];
      place(handle, left + across * w * view.sx - HANDLE_PX, top + down * h * view.sy - HANDLE_PX, 2 * HANDLE_PX, 2 * HANDLE_PX);
    });
  }

  // A drag on the stage: on a corner it resizes, inside it moves, elsewhere it draws anew. (px, py) on the stage.
  begin(px, py) {
    const [x, y] = this.#pixel(px, py);
    const old = this.value;
    this.#drag = { mode: "draw", x, y, old };
    if (!old) return;
    const near = CORNERS.findIndex(([across, down]) =>
      Math.abs(this.#view.x + (old.x + across * old.w) * this.#view.sx - px) <= HANDLE_PX &&
      Math.abs(this.#view.y + (old.y + down * old.h) * this.#view.sy - py) <= HANDLE_PX);
    if (near >= 0) {
      const [across, down] = CORNERS[near];
      Object.assign(this.#drag, { x: across ? old.x : old.x + old.w - 1, y: down ? old.y : old.y + old.h - 1 });
    } else if (x >= old.x && x < old.x + old.w && y >= old.y && y < old.y + old.h) {
      this.#drag.mode = "move";
    }
  }

  move(px, py) {
    if (!this.#drag) return;
    const [x, y] = this.#pixel(px, py);
    const { old } = this.#drag;
    if (this.#drag.mode === "move") {
      this.#set({ ...old, x: old.x + x - this.#drag.x, y: old.y + y - this.#drag.y });
    } else {
      this.#set({
        x: Math.min(x, this.#drag.x), y: Math.min(y, this.#drag.y),
        w: Math.abs(x - this.#drag.x) + 1, h: Math.abs(y - this.#drag.y) + 1,
      });
    }
  }

  end() {
    if (!this.#drag) return;
    const { old } = this.#drag;
    this.#drag = null;
    if (same(old, this.value)) return;
    this.#past.push(old);
    this.#told(this.value);
  }

  // In the middle, a quarter of the picture: where keys begin.
  place() {
    const { cols, rows } = this.#view;
    const [w, h] = [Math.max(1, Math.round(cols / 4)), Math.max(1, Math.round(rows / 4))];
    this.change({ x: Math.round((cols - w) / 2), y: Math.round((rows - h) / 2), w, h });
    if (document.activeElement !== this.#shape) this.#before = document.activeElement;
    this.#shape.focus();
  }

  change(value) {
    if (same(value, this.value)) return;
    this.#past.push(this.value);
    this.#set(value);
    this.#told(this.value);
  }

  undo() {
    if (!this.#past.length) return;
    this.#set(this.#past.pop());
    this.#told(this.value);
  }

  // Another picture: its box, without a past.
  load(value) {
    this.#past = [];
    this.value = value ? { ...value } : null;
    this.draw(this.#view);
  }

  #key(key) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key.key];
    if (step && this.value) {
      const [dx, dy] = step;
      const { x, y, w, h } = this.value;
      this.change(this.#inside(key.shiftKey ? { x, y, w: w + dx, h: h + dy } : { x: x + dx, y: y + dy, w, h }));
    } else if (key.key === "Delete" || key.key === "Backspace") {
      this.change(null);
      this.#leave();
    } else if (key.key === "Escape") {
      this.#leave();
    } else {
      return;
    }
    key.preventDefault();
    key.stopPropagation();
  }

  #leave() {
    if (this.#before?.isConnected) this.#before.focus();
    this.#shape.blur();
  }

  #set(value) {
    this.value = value && this.#inside(value);
    this.draw(this.#view);
  }

  #inside({ x, y, w, h }) {
    const { cols, rows } = this.#view;
    const width = Math.min(Math.max(w, 1), cols);
    const height = Math.min(Math.max(h, 1), rows);
    return {
      x: Math.min(Math.max(x, 0), cols - width), y: Math.min(Math.max(y, 0), rows - height), w: width, h: height,
    };
  }

  #pixel(px, py) {
    const { x, y, sx, sy, cols, rows } = this.#view;
    return [
      Math.min(Math.max(Math.floor((px - x) / sx), 0), cols - 1),
      Math.min(Math.max(Math.floor((py - y) / sy), 0), rows - 1),
    ];
  }
}

const same = (one, other) =>
  one === other || Boolean(one && other && one.x === other.x && one.y === other.y && one.w === other.w && one.h === other.h);

function place(shape, x, y, width, height) {
  for (const [name, value] of Object.entries({ x, y, width, height })) shape.setAttribute(name, value);
}
