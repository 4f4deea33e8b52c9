// What makes a saved report interactive: its charts, their legends by keyboard, their figures as
// tables. Without this script the page still has every verdict and every table.
import { count, elapsed, milliseconds, percentile, percentileChart, timeChart } from "./charts.js";

const DATA = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const plots = new Map();

function themeOf() {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(name).trim();
  return {
    dim: value("--dim"),
    grid: value("--grid"),
    bad: value("--bad"),
    colors: [1, 2, 3, 4, 5, 6, 7, 8].map((n) => value(`--line-${n}`)),
  };
}

function color(theme, n) {
  return theme.colors[n % theme.colors.length];
}

// More lines than colours: those after the eighth are dashed.
function styled(theme, n) {
  return { color: color(theme, n), dash: n < theme.colors.length ? undefined : [6, 4] };
}

// --- what each chart shows -----------------------------------------------------------------

const CHARTS = {
  throughput(theme) {
    const lines = DATA.runs.map((run, n) => ({
      ...styled(theme, n),
      label: DATA.runs.length > 1 ? run.label : "Ended well",
      values: run.throughput.mean,
      low: run.throughput.low,
      high: run.throughput.high,
      shade: `${color(theme, n)}33`,
      fill: DATA.runs.length > 1 || run.throughput.low ? undefined : `${color(theme, n)}22`,
    }));
    for (const run of DATA.runs) {
      if (run.failed.some((value) => value)) {
        const label = DATA.runs.length > 1 ? `${run.label}: not` : "Did not";
        lines.push({ label, values: run.failed, color: theme.bad });
      }
    }
    return timeChart({ x: DATA.seconds, lines, unit: (v) => (v == null ? "–" : `${count(v)}/s`), theme });
  },

  latency(theme, { operation, figure }) {
    const drawn = DATA.runs.filter((run) => run.slices?.by_operation[operation]);
    const lines = [];
    const tables = drawn.map((run) => {
      const found = run.slices.by_operation[operation];
      const shown = DATA.runs.length > 1 ? [figure] : Object.keys(found);
      for (const name of shown) {
        const n = DATA.runs.length > 1 ? DATA.runs.indexOf(run) : lines.length;
        lines.push({ ...styled(theme, n), label: DATA.runs.length > 1 ? run.label : name });
      }
      return [run.slices.seconds, ...shown.map((name) => found[name])];
    });
    const [x, ...values] = tables.length > 1 ? uPlot.join(tables) : (tables[0] ?? [[]]);
    lines.forEach((line, n) => (line.values = values[n]));
    return timeChart({ x, lines, unit: milliseconds, theme });
  },

  connections(theme) {
    const lines = DATA.runs.map((run, n) => ({
      ...styled(theme, n),
      label: DATA.runs.length > 1 ? run.label : "In use",
      values: run.in_use,
    }));
    if (DATA.runs.length === 1) {
      const [run] = DATA.runs;
      lines.push({ label: "Waiting for one", values: run.waiting, ...styled(theme, 2) });
      if (run.pool_size) {
        const values = DATA.seconds.map(() => run.pool_size);
        lines.push({ label: "Pool size", values, color: theme.dim, dash: [4, 4] });
      }
    }
    return timeChart({ x: DATA.seconds, lines, unit: count, theme });
  },

  percentiles(theme, { operation }) {
    const lines = [];
    DATA.runs.forEach((run, n) => {
      const names = DATA.runs.length > 1 ? [operation] : Object.keys(run.percentiles);
      for (const name of names.filter((each) => run.percentiles[each])) {
        const at = DATA.runs.length > 1 ? n : lines.length;
        const label = DATA.runs.length > 1 ? run.label : name || "All operations";
        lines.push({ ...styled(theme, at), label, values: run.percentiles[name] });
      }
    });
    return percentileChart({ x: DATA.inverse, lines, theme });
  },
};

// --- drawing -------------------------------------------------------------------------------

function chosen(figure) {
  const choices = { operation: "", figure: "p99" };
  for (const select of figure.querySelectorAll("select")) choices[select.name] = select.value;
  return choices;
}

function draw(figure) {
  const place = figure.querySelector(".plot");
  plots.get(figure)?.destroy();
  const { options, data } = CHARTS[figure.dataset.chart](themeOf(), chosen(figure));
  const plot = new uPlot({ ...options, width: widthOf(place) }, data, place);
  plots.set(figure, plot);
  for (const row of place.querySelectorAll(".u-series")) makeSwitch(row);
  const details = figure.querySelector("details");
  if (details?.open) tabulate(figure);
}

// What fits a sheet in portrait, A4 or letter.
const PAPER = 640;

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

const figures = [...document.querySelectorAll("figure[data-chart]")];

function drawAll() {
  figures.forEach(draw);
}

for (const figure of figures) {
  figure.hidden = false;
  figure.querySelector(".plot").addEventListener("keydown", onKey);
  figure.querySelector("details")?.addEventListener("toggle", (event) => {
    if (event.target.open) tabulate(figure);
  });
  for (const select of figure.querySelectorAll("select")) {
    select.addEventListener("change", () => draw(figure));
  }
}
drawAll();

new ResizeObserver(() => {
  for (const [figure, plot] of plots) {
    const width = widthOf(figure.querySelector(".plot"));
    if (width !== plot.width) plot.setSize({ width, height: plot.height });
  }
}).observe(document.querySelector("main"));

dark.addEventListener("change", drawAll);
// A canvas keeps the colours and the width it was drawn with, and paper is light and narrow.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details.run")) details.open = true;
  document.documentElement.classList.add("light");
  drawAll();
});
addEventListener("afterprint", () => {
  document.documentElement.classList.remove("light");
  drawAll();
});
document.documentElement.dataset.drawn = String(figures.length);
performance.mark("drawn");
