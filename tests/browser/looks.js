// What is wrong with the alert screen as it is drawn: each answers with a list of faults, one line each.

const named = (one) =>
  `${one.getAttribute("class") || one.id || one.tagName} "${one.textContent.replace(/\s+/g, " ").trim().slice(0, 40)}"`;

// What leaves the screen or its own box, is cut off in it or lies under something else, of all that must be read or done.
function hidden() {
  const out = [];
  const page = document.documentElement;
  if (page.scrollHeight > innerHeight || page.scrollWidth > innerWidth) out.push("the page scrolls");
  const boxes = ".hero, .middle, .say, .words, .bottom, .level, aside, .banner, .banner *, .bottom button";
  for (const box of document.querySelectorAll(boxes)) {
    const { scrollWidth, scrollHeight, clientWidth, clientHeight } = box;
    if (getComputedStyle(box).display === "inline" || !clientHeight) continue;
    if (scrollHeight > clientHeight + 2 || scrollWidth > clientWidth + 2) // 2 px: rounding
      out.push(`${scrollWidth}x${scrollHeight} in ${clientWidth}x${clientHeight}: ${named(box)}`);
    const at = box.getBoundingClientRect();
    if (at.bottom > innerHeight + 1 || at.right > innerWidth + 1) out.push(`leaves the screen: ${named(box)}`);
  }
  const loud =
    ".words > *, .level p, .level .glyph, .level .count, .tag.overdue, .bottom > *, .middle > *, .banner > *, footer, #clock";
  for (const one of document.querySelectorAll(loud)) {
    const at = one.getBoundingClientRect();
    if (!one.checkVisibility({ visibilityProperty: true }) || !at.width || !at.height) continue;
    const over = [at.left + 3, (at.left + at.right) / 2, at.right - 3]
      .flatMap((x) => [at.top + 3, at.bottom - 3].map((y) => document.elementFromPoint(x, y)))
      .find((hit) => hit && !one.contains(hit) && !hit.contains(one));
    if (over) out.push(`${named(one)} lies under ${named(over)}`);
  }
  return out;
}

// What can be touched, in the open dialog or else the page, and answers to less than a gloved finger: touches are tried.
function tooSmall() {
  const out = [];
  const place = document.querySelector("dialog[open]") ?? document;
  for (const one of place.querySelectorAll("button, a[href], input, select, summary")) {
    const target = one.closest("label") ?? one;
    if (!target.checkVisibility({ visibilityProperty: true })) continue;
    if (one.closest("dialog")) target.scrollIntoView({ block: "center" });
    const at = target.getBoundingClientRect();
    if (at.right > innerWidth || at.bottom > innerHeight) continue; // a row of the list that found no place
    const isMain = one.matches("[data-acknowledge], [data-tell]") && !one.matches(".over"); // the rest are rows of the list
    if (isMain && at.height < 64) out.push(`${at.height} high: ${named(one)}`);
    const [x, y, up] = [(at.left + at.right) / 2, (at.top + at.bottom) / 2, isMain ? 31 : 23];
    for (const [dx, dy] of [[0, -up], [0, up], [-23, 0], [23, 0]]) {
      if (!target.contains(document.elementFromPoint(x + dx, y + dy))) out.push(`not at ${dx},${dy}: ${named(one)}`);
    }
  }
  return out;
}

// What is wider than itself in an open dialog.
function tooWide() {
  const dialog = document.querySelector("dialog[open]");
  return [dialog, ...dialog.querySelectorAll("*")]
    .filter((one) => one.clientWidth && one.scrollWidth > one.clientWidth + 1 && !one.matches(".unseen"))
    .filter((one) => getComputedStyle(one).display !== "inline")
    .map((one) => `${one.scrollWidth} in ${one.clientWidth}: ${named(one)}`);
}

// Glyphs that differ from what they lie on, or signs in them from their shape, by less than 3:1 (WCAG 1.4.11).
function faint() {
  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const mixed = (front, back, share) => front.slice(0, 3).map((v, n) => v * share + back[n] * (1 - share));
  const ratio = (one, other) => {
    const [dark, bright] = [light(one), light(other)].sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  };
  const drawnIn = (part) => {
    const { fill, stroke } = getComputedStyle(part);
    return numbers(fill === "none" ? stroke : fill);
  };
  // Every colour that lies behind: of a gradient all its stops.
  const behind = (one) => {
    for (let box = one.parentElement; box; box = box.parentElement) {
      const { backgroundImage, backgroundColor } = getComputedStyle(box);
      const stops = backgroundImage.match(/rgba?\([^)]*\)/g);
      if (stops) return stops.map(numbers);
      const [r, g, b, share = 1] = numbers(backgroundColor);
      if (share === 1) return [[r, g, b]];
      if (share > 0) return behind(box).map((back) => mixed([r, g, b], back, share));
    }
    return [[0, 0, 0]];
  };
  const out = [];
  for (const glyph of document.querySelectorAll("svg.glyph, svg.ready, .more svg")) {
    if (!glyph.checkVisibility()) continue;
    let share = 1;
    for (let box = glyph; box; box = box.parentElement) share *= Number(getComputedStyle(box).opacity);
    const ink = glyph.querySelector(".ink");
    for (const back of behind(glyph)) {
      const shape = mixed(drawnIn(glyph.querySelector(".fill, .stroke, path, circle")), back, share);
      const found = [ratio(shape, back), ...(ink ? [ratio(mixed(drawnIn(ink), back, share), shape)] : [])];
      if (Math.min(...found) < 3) out.push(`${found.map((v) => v.toFixed(2))} on ${back}: ${named(glyph)}`);
    }
  }
  return out;
}
