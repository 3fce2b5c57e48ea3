// Frames on their way from the box: what is wanted first comes first, what was used last stays longest.
const MOST_BYTES = 128 * 1024 * 1024;
const AT_ONCE = 3; // a browser opens six connections to a host, and one is the event stream's
const AGAIN_MS = 1500;
const FAULT_MS = 20000;

export class Frames {
  #address;
  #changed;
  #kept = new Map(); // in the order of use
  #bytes = 0;
  #queue = [];
  #running = new Map();
  #faults = new Map();

  // address(key) is where a frame is; changed(key) is called when it came or failed.
  constructor(address, changed) {
    this.#address = address;
    this.#changed = changed;
  }

  // The frame if it is here: {meta, data, width, height}.
  get(key) {
    const frame = this.#kept.get(key);
    if (frame) {
      this.#kept.delete(key);
      this.#kept.set(key, frame);
    }
    return frame;
  }

  has(key) {
    return this.#kept.has(key);
  }

  // Why it does not come: {text, final}.
  fault(key) {
    const fault = this.#faults.get(key);
    return fault && performance.now() - fault.at < FAULT_MS ? fault : null;
  }

  // Fetch these, in this order, and nothing else.
  want(keys) {
    const wanted = new Set(keys);
    for (const [key, abort] of this.#running) {
      if (wanted.has(key)) continue;
      this.#running.delete(key);
      abort.abort();
    }
    this.#queue = keys.filter((key) => !this.#kept.has(key) && !this.#running.has(key) && !this.fault(key));
    this.#next();
  }

  stop() {
    this.want([]);
  }

  #next() {
    while (this.#running.size < AT_ONCE && this.#queue.length) this.#fetch(this.#queue.shift());
  }

  async #fetch(key) {
    const abort = new AbortController();
    this.#running.set(key, abort);
    let again = false;
    try {
      const answer = await fetch(this.#address(key), { signal: abort.signal, cache: "no-store" });
      if (answer.status === 200) {
        const meta = JSON.parse(answer.headers.get("Image-Meta"));
        const buffer = await answer.arrayBuffer();
        if (!abort.signal.aborted) this.#keep(key, meta, buffer);
      } else if (answer.status === 202) {
        again = true;
      } else if (answer.status === 401) {
        location.reload();
      } else {
        const told = await answer.json().catch(() => ({}));
        this.#faults.set(key, { text: told.error ?? "", at: performance.now() });
      }
    } catch (error) {
      if (error.name !== "AbortError") {
        this.#faults.set(key, { text: "", at: performance.now() - FAULT_MS + AGAIN_MS });
      }
    }
    if (abort.signal.aborted) return; // another may have begun under the same key
    this.#running.delete(key);
    if (again) this.#queue.unshift(key);
    this.#next();
    if (!again) this.#changed(key);
  }

  #keep(key, meta, buffer) {
    const data = meta.type === "rgb" ? new Uint8Array(buffer) : new Uint16Array(buffer);
    this.#kept.set(key, { meta, data, width: meta.got[0], height: meta.got[1] });
    this.#bytes += buffer.byteLength;
    for (const [old, frame] of this.#kept) {
      if (this.#bytes <= MOST_BYTES || old === key) break;
      this.#kept.delete(old);
      this.#bytes -= frame.data.byteLength;
    }
  }
}
