// From stored values to what a screen shows, and from directions to letters: rules without a page.
// The window functions are those of appliance/dicom/luts.py (PS3.3 C.11.2.1.2, C.11.2.1.3); a test ties them together.

const between = (value, low, high) => Math.min(Math.max(value, low), high);

// A window's grey for a value after rescale, from 0 to 1.
export function unit(value, centre, width, kind = "LINEAR") {
  if (kind === "SIGMOID") return between(1 / (1 + Math.exp(between((-4 * (value - centre)) / width, -80, 80))), 0, 1);
  if (kind === "LINEAR_EXACT" || width <= 1) return between((value - centre) / width + 0.5, 0, 1);
  return between((value - (centre - 0.5)) / (width - 1) + 0.5, 0, 1);
}

// The grey of every stored 16-bit pattern, as RGBA that a canvas takes; `inverted` after the image's own polarity.
export function table(meta, window, inverted = false) {
  const colours = new Uint32Array(65536);
  const turned = meta.inverted !== inverted;
  const signed = meta.type === "i2";
  for (let pattern = 0; pattern < 65536; pattern += 1) {
    const stored = signed && pattern > 32767 ? pattern - 65536 : pattern;
    const grey = unit(stored * meta.slope + meta.intercept, window.centre, window.width, window.kind);
    colours[pattern] = (0xff000000 | (Math.round((turned ? 1 - grey : grey) * 255) * 0x010101)) >>> 0;
  }
  return colours;
}

// Writes a frame through a table into the pixels of an ImageData of its size.
export function paint(frame, colours, pixels) {
  const out = new Uint32Array(pixels.buffer);
  const { data } = frame;
  if (frame.meta.type === "rgb") {
    for (let n = 0, at = 0; n < out.length; n += 1, at += 3) {
      out[n] = (0xff000000 | (data[at + 2] << 16) | (data[at + 1] << 8) | data[at]) >>> 0;
    }
    return;
  }
  for (let n = 0; n < out.length; n += 1) out[n] = colours[data[n]];
}

export const halved = (side) => Math.ceil(side / 2);

// The same at half the size: every pixel the mean of two by two, at an odd edge of those that are there. Of grey only.
export function paintHalf(frame, colours, pixels) {
  const out = new Uint32Array(pixels.buffer);
  const { data, width, height } = frame;
  const columns = halved(width);
  for (let y = 0, n = 0; y < height; y += 2) {
    const above = y * width;
    const below = y + 1 < height ? above + width : above;
    for (let x = 0; x < columns; x += 1, n += 1) {
      const left = 2 * x;
      const right = left + 1 < width ? left + 1 : left;
      const sum = (colours[data[above + left]] & 255) + (colours[data[above + right]] & 255)
        + (colours[data[below + left]] & 255) + (colours[data[below + right]] & 255);
      out[n] = (0xff000000 | (((sum + 2) >> 2) * 0x010101)) >>> 0;
    }
  }
}

// The window that an image is shown in at first: its own, else everything that is there.
export function ownWindow(meta) {
  if (meta.windows?.length) return { centre: meta.windows[0][0], width: meta.windows[0][1], kind: meta.windows[0][2] };
  const [low, high] = meta.range ?? [0, 255];
  return { centre: (low + high) / 2, width: Math.max(high - low, 1e-6), kind: "LINEAR_EXACT" };
}

// Patient axes (PS3.3 C.7.6.2.1.1): x to the left, y to the back, z to the head.
const AXES = [["R", "L"], ["A", "P"], ["F", "H"]];
const OPPOSITE = { A: "P", P: "A", L: "R", R: "L", H: "F", F: "H" };
// A direction within six degrees of an axis is that axis; beyond, the tilt is told by a second letter.
const TILT = 0.1;

export function letters(direction) {
  return direction
    .map((part, axis) => ({ size: Math.abs(part), letter: AXES[axis][part > 0 ? 1 : 0] }))
    .filter((one) => one.size > TILT)
    .sort((one, other) => other.size - one.size)
    .map((one) => one.letter)
    .join("");
}

const opposite = (word) => [...word].map((letter) => OPPOSITE[letter] ?? "").join("");

// What stands at the edges of an image: {left, right, top, bottom}, empty where nothing is known.
export function edges(meta) {
  let right = "";
  let bottom = "";
  if (meta.orientation) {
    right = letters(meta.orientation.slice(0, 3));
    bottom = letters(meta.orientation.slice(3));
  } else if (meta.towards?.length === 2 && meta.towards.every((word) => opposite(word).length === word.length)) {
    [right, bottom] = meta.towards;
  }
  return { left: opposite(right), right, top: opposite(bottom), bottom };
}

// A round length in mm that fits into so many pixels.
export function scaleLength(pixelsPerMm, most) {
  const fitting = [200, 100, 50, 20, 10, 5, 2, 1].filter((mm) => mm * pixelsPerMm <= most);
  return fitting.length ? fitting[0] : 0;
}
