// Plots of the health page. One cursor over all of them; colours of the palette, no green.
const holder = document.getElementById("plots");
const COLOURS = ["#4fc3f7", "#ffc400"];
const GRID = { stroke: "#9fb1c3", grid: { stroke: "#1e2935", width: 1 }, ticks: { stroke: "#263341", width: 1 }, font: "12px Inter, sans-serif" };

// The time of day as everywhere on the box, in its zone, not the browser's; the date where a day begins or days are all
// that is told.
const two = (n) => String(n).padStart(2, "0");
const times = (offset) => (_, splits, __, ___, step) => {
  let day = null;
  return splits.map((second) => {
    const at = new Date((second + offset * 60) * 1000);
    const date = `${two(at.getUTCMonth() + 1)}-${two(at.getUTCDate())}`;
    const isNew = date !== day;
    day = date;
    const time = `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
    return step >= 86400 ? date : isNew ? `${time}\n${date}` : time;
  });
};

// Two digits say enough; of minutes, in the unit in which a person would say it.
const round = (value) => String(Math.abs(value) >= 10 ? Math.round(value) : Number(value.toPrecision(2)));
function shown(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit === "min" && value !== 0) {
    if (value < 1) return `${round(value * 60)} s`;
    return value < 90 ? `${round(value)} min` : `${round(value / 60)} h`;
  }
  return round(value);
}

function draw(plot, data, sync) {
  const metrics = plot.dataset.metrics.split(" ").filter((name) => data[name].some((value) => value !== null));
  if (!metrics.length) return null;
  const labels = plot.dataset.labels.split("|");
  const names = plot.dataset.metrics.split(" ");
  const scale = Number(plot.dataset.scale);
  const columns = metrics.map((name) => data[name].map((value) => (value === null ? null : value / scale)));
  const now = plot.parentElement.querySelector("[data-now]");
  const tell = (at) => {
    now.textContent = metrics.map((name, n) => `${metrics.length > 1 ? `${labels[names.indexOf(name)]} ` : ""}${shown(columns[n][at], plot.dataset.unit)}`).join(" · ");
  };
  const figure = new uPlot({
    width: plot.clientWidth,
    height: 170,
    cursor: { sync: { key: sync.key }, points: { size: 6 }, drag: { x: false, y: false } },
    legend: { show: false },
    // The whole range, also where the box is younger than it: one sample alone would make an axis of a year.
    scales: { x: { range: () => [data.from, data.to] }, y: { range: (_, low, high) => [0, Math.max(high * 1.1, 1)] } },
    axes: [{ ...GRID, values: times(data.offset_min) }, { ...GRID, size: 46 }],
    series: [{}, ...metrics.map((name, n) => ({ stroke: COLOURS[n], width: 1.5, spanGaps: false, points: { show: data.at.length < 4 } }))],
    hooks: { setCursor: [(u) => tell(u.cursor.idx ?? data.at.length - 1)] },
  }, [data.at, ...columns], plot);
  tell(data.at.length - 1);
  return figure;
}

async function begin() {
  const answer = await fetch(`/health/series?range=${holder.dataset.range}`);
  if (!answer.ok) return;
  const data = await answer.json();
  if (!data.at.length) return;
  const sync = uPlot.sync("health");
  const figures = [...holder.querySelectorAll(".plot")].filter((plot) => !plot.closest("[hidden]")).map((plot) => [plot, draw(plot, data, sync)]);
  holder.dataset.drawn = "true";
  new ResizeObserver(() => {
    for (const [plot, figure] of figures) figure?.setSize({ width: plot.clientWidth, height: 170 });
  }).observe(holder);
}

if (holder) begin();
