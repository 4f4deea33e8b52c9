// Charts in a page: a <figure> with a .plot, its legend and its figures by keyboard and as a table.
// For a saved report and for a live page alike.

const plots = new Map();
// What fits a sheet in portrait, A4 or letter, in CSS pixels.
const PAPER = 640;

/** The colours of the page's style sheet, which a canvas cannot look up by itself. */
export function themeOf() {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(name).trim();
  return {
    dim: value("--dim"),
    grid: value("--grid"),
    bad: value("--bad"),
    colors: [1, 2, 3, 4, 5, 6, 7, 8].map((n) => value(`--line-${n}`)),
  };
}

/** Draw a chart of charts.js in its figure, in the place of the one that was there. */
export function draw(figure, { options, data }) {
  const place = figure.querySelector(".plot");
  plots.get(figure)?.destroy();
  plots.set(figure, new uPlot({ ...options, width: widthOf(place) }, data, place));
  for (const row of place.querySelectorAll(".u-series")) makeSwitch(row);
  if (figure.querySelector("details")?.open) tabulate(figure);
}

/**
 * Put new data into a figure's chart, with its zoom and its hidden lines as they are; false where
 * the figure has another chart, or none.
 */
export function refresh(figure, { options, data }) {
  const plot = plots.get(figure);
  const labels = ({ series }) => JSON.stringify(series.map(({ label }) => label));
  if (!plot || labels(plot) !== labels(options)) return false;
  const { min, max } = plot.scales.x;
  const x = plot.data[0];
  const isZoomed = min > x[0] || max < x.at(-1);
  plot.batch(() => {
    plot.setData(data, !isZoomed);
    if (isZoomed) plot.setScale("x", { min, max });
  });
  if (figure.querySelector("details")?.open) tabulate(figure);
  return true;
}

/** Listen to what is done to a figure: once for each. */
export function enliven(figure) {
  figure.querySelector(".plot").addEventListener("keydown", onKey);
  figure.querySelector("details")?.addEventListener("toggle", (event) => {
    if (event.target.open) tabulate(figure);
  });
}

/** Make all charts as wide as their places are now. */
export function fit() {
  for (const [figure, plot] of plots) {
    const width = widthOf(figure.querySelector(".plot"));
    if (width !== plot.width) plot.setSize({ width, height: plot.height });
  }
}

function widthOf(place) {
  if (document.documentElement.classList.contains("light")) return PAPER;
  return Math.max(200, Math.floor(place.clientWidth));
}

/** A row of the legend shows and hides its line: by mouse already, now by keyboard too. */
function makeSwitch(row) {
  const label = row.querySelector("th");
  label.tabIndex = 0;
  label.setAttribute("role", "switch");
  const say = () => label.setAttribute("aria-checked", String(!row.classList.contains("u-off")));
  say();
  label.addEventListener("click", () => queueMicrotask(say));
  label.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      label.click();
    }
  });
}

/** Arrow keys move along a chart; what is there is in the legend, and said. */
function onKey(event) {
  const figure = event.currentTarget.closest("figure");
  const plot = plots.get(figure);
  const last = plot.data[0].length - 1;
  const now = plot.cursor.idx ?? -1;
  const step = Math.max(1, Math.round(last / 200));
  const next = { ArrowLeft: now - step, ArrowRight: now + step, Home: 0, End: last }[event.key];
  if (event.key === "Escape") plot.setData(plot.data);
  if (next === undefined || last < 0) return;
  event.preventDefault();
  const at = Math.min(last, Math.max(0, next));
  const place = { left: plot.valToPos(plot.data[0][at], "x"), top: plot.over.clientHeight / 2 };
  plot.setCursor(place, true, true); // the charts on the same axis follow
  figure.querySelector(".said").textContent = rowOf(plot, at)
    .map((text, n) => `${plot.series[shownSeries(plot)[n]].label} ${text}`)
    .join(", ");
}

function shownSeries(plot) {
  return plot.series.map((_, n) => n).filter((n) => plot.series[n].class !== "edge");
}

function rowOf(plot, at) {
  return shownSeries(plot).map((n) => plot.series[n].value(plot, plot.data[n][at]));
}

/** The chart's figures as a table, made when it is opened: at most sixty rows of them. */
function tabulate(figure) {
  const plot = plots.get(figure);
  const table = figure.querySelector("details table");
  table.replaceChildren();
  const head = table.createTHead().insertRow();
  for (const n of shownSeries(plot)) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = plot.series[n].label;
    head.append(cell);
  }
  const body = table.createTBody();
  const step = Math.max(1, Math.ceil(plot.data[0].length / 60));
  for (let at = 0; at < plot.data[0].length; at += step) {
    const row = body.insertRow();
    for (const text of rowOf(plot, at)) row.insertCell().textContent = text;
  }
}
