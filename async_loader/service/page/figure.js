// A figure of a live page: the same elements as the reports' figures have, and its chart.
import { draw, enliven, fit, refresh, themeOf } from "./figures.js";
import { $, el, options } from "./dom.js";

const makers = new Map();

/** A figure, hidden until it has a chart; `choices` are the names of selects in its caption. */
export function makeFigure(name, title, ...choices) {
  const id = `chart-${name}`;
  const selects = choices.map((choice) =>
    el("label", {}, `${choice} `, el("select", { name: choice, onchange: () => redraw(figure) })),
  );
  const table = el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "table" }, el("table"));
  const figure = el(
    "figure", { "data-chart": name, "aria-labelledby": id, hidden: true },
    el("figcaption", {}, el("h3", { id }, title), selects),
    el("div", { class: "plot", tabindex: "0", role: "group", "aria-labelledby": id }),
    el("p", { class: "said", "aria-live": "polite" }),
    el("details", {}, el("summary", {}, "Figures as a table"), table),
  );
  enliven(figure);
  return figure;
}

/** Give a select of a figure its values, with their texts; with one or none it is not shown. */
export function choose(figure, choice, values) {
  const select = $(`select[name=${choice}]`, figure);
  options(select, values);
  select.parentElement.hidden = values.length < 2;
}

/** Draw what `make` returns for a theme and the choices: now, and again when these change. */
export function show(figure, make) {
  makers.set(figure, make);
  figure.hidden = false;
  redraw(figure);
}

/** The same for a chart that grows: what the reader has zoomed to or hidden stays so. */
export function follow(figure, make) {
  makers.set(figure, make);
  figure.hidden = false;
  if (!refresh(figure, chartOf(figure))) redraw(figure);
}

function redraw(figure) {
  draw(figure, chartOf(figure));
  if (!performance.getEntriesByName("drawn").length) performance.mark("drawn");
}

function chartOf(figure) {
  const choices = { operation: "", figure: "p99" };
  for (const select of figure.querySelectorAll("figcaption select")) choices[select.name] = select.value;
  return makers.get(figure)(themeOf(), choices);
}

new ResizeObserver(fit).observe($("main"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const figure of makers.keys()) if (!figure.hidden) redraw(figure);
});
