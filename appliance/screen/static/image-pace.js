// What goes by the clock of the screen: the time from a wish to what the eye sees, and slices that play.
const CINE_MS = 100;
const MOST_MEASURES = 100;

// After what was drawn so far is on the screen.
export function painted(call) {
  requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = call;
    channel.port2.postMessage(0);
  });
}

// A wish for a slice, told to whoever watches performance entries: image-view:cached, image-view:fetched.
export class Wish {
  #name;
  #at = performance.now();

  constructor(isCached) {
    this.#name = `image-view:${isCached ? "cached" : "fetched"}`;
  }

  // It has been drawn.
  fulfil() {
    painted(() => {
      if (performance.getEntriesByName(this.#name).length >= MOST_MEASURES) performance.clearMeasures(this.#name);
      performance.measure(this.#name, { start: this.#at, end: performance.now() });
    });
  }
}

export class Cine {
  #button;
  #next;
  #timer = null;

  constructor(button, next) {
    this.#button = button;
    this.#next = next;
  }

  toggle() {
    if (this.#timer) {
      this.stop();
    } else {
      this.#button.setAttribute("aria-pressed", "true");
      this.#timer = setInterval(this.#next, CINE_MS);
    }
  }

  stop() {
    if (!this.#timer) return;
    clearInterval(this.#timer);
    this.#timer = null;
    this.#button.setAttribute("aria-pressed", "false");
  }
}
