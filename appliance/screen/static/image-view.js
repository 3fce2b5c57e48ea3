// <image-view>: the images of one study on a canvas of its own. Its parts stand in viewer.html, so that texts are
// translated there and a browser without scripts shows the preview.
//
// For pages that include it:
//   attribute data-first: no place of the AI is asked for; renew() after it was taken away
//   zoom      how large; 1 fits
//   event image-view:seen {series, index, picture}      a slice was on the screen for a third of a second
//   attribute editable; event image-view:region {series, index, picture, frame, x, y, w, h} in pixels of the image, or
//   with x null where the box was removed; setRegion(picture, {x, y, w, h} | null)
import { Hands } from "./image-hands.js";
import { Reader } from "./image-reader.js";

class ImageView extends HTMLElement {
  #reader = null;
  #listening = null;

  connectedCallback() {
    const parts = Object.fromEntries([...this.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    this.#reader = new Reader(this, parts, JSON.parse(parts.words.textContent), signal);
    new Hands(this, parts, this.#reader, signal);
    document.body.addEventListener("scanside:facts", (fact) => {
      if (fact.detail.studies.includes(Number(this.dataset.study))) this.#reader.ask();
    }, { signal });
    this.dataset.state = "loading";
    parts.scripted.hidden = false;
    this.#reader.ask();
  }

  disconnectedCallback() {
    this.#listening.abort();
    this.#reader.stop();
  }

  renew() {
    this.#reader.renew();
  }

  setRegion(picture, region) {
    this.#reader.setRegion(picture, region);
  }

  get zoom() { return this.#reader.zoom; }

  set zoom(value) { this.#reader.zoomTo(value); }
}

customElements.define("image-view", ImageView);
