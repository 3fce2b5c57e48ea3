// What a result marks over the images: fetched for the picture that is shown, drawn only where the box says that
// something may be drawn, and only while the reader wants it.
import { mark } from "./image-text.js";

const SVG = "http://www.w3.org/2000/svg";
const KEPT = "image-view:marks"; // for this session of the browser
const AGAIN_MS = 3000;
const POINT_RADIUS = 12;

export class Marks {
  #parts;
  #address;
  #layer = null;
  #group = null;
  #lines = new Map(); // by picture: "asked", then lines
  #picture = null;
  #view = null;
  #isOn = sessionStorage.getItem(KEPT) === "on";
  #isAllowed = false;

  // address(picture) is where the lines over a picture are.
  constructor(parts, address) {
    this.#parts = parts;
    this.#address = address;
  }

  allow(isAllowed) {
    this.#isAllowed = isAllowed;
    this.#parts.marks?.toggleAttribute("hidden", !isAllowed);
    if (!isAllowed) this.#group?.replaceChildren();
  }

  // What was told holds no more.
  forget() {
    this.#lines.clear();
  }

  toggle() {
    if (!this.#isAllowed) return;
    this.#isOn = !this.#isOn;
    sessionStorage.setItem(KEPT, this.#isOn ? "on" : "off");
    this.draw();
  }

  // Over this picture from now on; null: over none.
  show(picture) {
    this.#picture = picture;
    if (picture) this.draw();
    else this.#group?.replaceChildren();
  }

  // Where the picture lies on the stage.
  place(view) {
    this.#view = view;
    if (view) this.#group?.setAttribute("transform", `matrix(${view.sx} 0 0 ${view.sy} ${view.x} ${view.y})`);
  }

  draw() {
    if (!this.#isAllowed || !this.#picture) return;
    this.#make();
    mark(this.#parts.marks, "aria-pressed", String(this.#isOn));
    this.#layer.toggleAttribute("hidden", !this.#isOn);
    if (!this.#isOn) return;
    const told = this.#lines.get(this.#picture.id);
    if (!told) {
      this.#lines.set(this.#picture.id, "asked");
      this.#fetch(this.#picture);
    }
    this.#group.replaceChildren(...(told && told !== "asked" ? told.map(shapeOf) : []));
    this.place(this.#view);
  }

  #make() {
    if (this.#layer) return;
    this.#layer = document.createElementNS(SVG, "svg");
    this.#layer.classList.add("iv-layer");
    this.#layer.dataset.layer = "overlay";
    this.#layer.setAttribute("aria-hidden", "true");
    this.#group = document.createElementNS(SVG, "g");
    this.#layer.append(this.#group);
    this.#parts.canvas.after(this.#layer);
  }

  async #fetch(picture) {
    try {
      const answer = await fetch(this.#address(picture));
      if (answer.status === 202) throw new Error("not yet");
      this.#lines.set(picture.id, answer.ok ? (await answer.json()).lines : []);
    } catch {
      this.#lines.delete(picture.id);
      setTimeout(() => this.#drawFor(picture), AGAIN_MS);
      return;
    }
    this.#drawFor(picture);
  }

  #drawFor(picture) {
    if (this.#picture?.id === picture.id) this.draw();
  }
}

function shapeOf({ points, title, finding }) {
  const shape = document.createElementNS(SVG, points.length === 1 ? "circle" : "polyline");
  if (points.length === 1) {
    shape.setAttribute("cx", points[0][0]);
    shape.setAttribute("cy", points[0][1]);
    shape.setAttribute("r", POINT_RADIUS);
  } else {
    shape.setAttribute("points", points.map((point) => point.join(",")).join(" "));
  }
  shape.dataset.finding = finding;
  const name = document.createElementNS(SVG, "title");
  name.textContent = title;
  shape.append(name);
  return shape;
}
