// The list of a study's images: asked for, asked again while images arrive or the box does not answer.
const OPEN_POLL_MS = 2000;
const AGAIN_MS = 3000;

export class ImageList {
  #address;
  #told;
  #timer = 0;
  #isStopped = false;

  // address() is where the list is now; told(list) is called with what came: null where nothing did, and an empty
  // list where the box has no such study.
  constructor(address, told) {
    this.#address = address;
    this.#told = told;
  }

  async ask() {
    clearTimeout(this.#timer);
    const address = this.#address();
    const list = await fetched(address);
    if (this.#isStopped || address !== this.#address()) return; // another was asked for meanwhile
    if (!list || list.open) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.ask(), list ? OPEN_POLL_MS : AGAIN_MS);
    }
    this.#told(list);
  }

  stop() {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }
}

async function fetched(address) {
  try {
    const answer = await fetch(address);
    if (answer.status === 401) location.reload();
    if (answer.ok) return await answer.json();
    if (answer.status === 404) return { open: false, note: "", overlay: false, series: [] };
  } catch { /* the box does not answer */ }
  return null;
}
