// Plots of a box. One cursor over all of them; colours of the palette, no green; a missing five minutes is a gap.
const holder = document.getElementById("plots");
const COLOURS = ["#4fc3f7", "#ffc400"];
const AXIS = { stroke: "#9fb1c3", grid: { stroke: "#1e2935", width: 1 }, ticks: { stroke: "#263341", width: 1 }, font: "12px Inter, sans-serif" };
const HEIGHT = 150;
const two = (n) => String(n).padStart(2, "0");

// In the server's zone, as the page's other times; the date where days are all that is told.
const times = (offset) => (_, splits, __, ___, step) =>
  splits.map((second) => {
    const at = new Date((second + offset * 60) * 1000);
    return step >= 86400 ? `${two(at.getUTCMonth() + 1)}-${two(at.getUTCDate())}` : `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
  });

const shown = (value, unit) => {
  if (value === null || value === undefined) return "–";
  return `${Math.abs(value) >= 10 ? Math.round(value) : Number(value.toPrecision(2))}${unit ? ` ${unit}` : ""}`;
};

function draw(plot, data, sync) {
  const names = plot.dataset.series.split(" ");
  const labels = plot.dataset.labels.split("|");
  const kept = names.map((name, n) => [name, labels[n]]).filter(([name]) => data[name].some((value) => value !== null));
  const figure = plot.closest("figure");
  if (!kept.length) {
    figure.hidden = true;
    return null;
  }
  const now = figure.querySelector(".now");
  const tell = (at) => {
    now.textContent = kept.map(([name, label]) => `${kept.length > 1 ? `${label} ` : ""}${shown(data[name][at], plot.dataset.unit)}`).join(" · ");
  };
  const made = new uPlot({
    width: plot.clientWidth,
    height: HEIGHT,
    cursor: { sync: { key: sync.key }, points: { size: 6 }, drag: { x: false, y: false } },
    legend: { show: false },
    scales: { x: { range: () => [data.from, data.to] }, y: { range: (_, low, high) => [Math.min(0, low), Math.max(high * 1.1, 1)] } },
    axes: [{ ...AXIS, values: times(data.offset_min) }, { ...AXIS, size: 60 }],
    series: [{}, ...kept.map((_, n) => ({ stroke: COLOURS[n], width: 1.5, spanGaps: false, points: { show: data.at.length < 4 } }))],
    hooks: { setCursor: [(u) => tell(u.cursor.idx ?? data.at.length - 1)] },
  }, [data.at, ...kept.map(([name]) => data[name])], plot);
  tell(data.at.length - 1);
  return made;
}

async function begin() {
  const answer = await fetch(holder.dataset.address, { headers: { "X-Background": "1" } });
  if (!answer.ok) return;
  const data = await answer.json();
  if (!data.at.length) {
    for (const figure of holder.querySelectorAll("figure")) figure.hidden = true;
    document.getElementById("no-points").hidden = false;
    holder.dataset.drawn = "none";
    return;
  }
  const sync = uPlot.sync("box");
  const figures = [...holder.querySelectorAll(".plot")].map((plot) => [plot, draw(plot, data, sync)]);
  holder.dataset.drawn = "true";
  new ResizeObserver(() => {
    for (const [plot, figure] of figures) figure?.setSize({ width: plot.clientWidth, height: HEIGHT });
  }).observe(holder);
}

if (holder) begin();
