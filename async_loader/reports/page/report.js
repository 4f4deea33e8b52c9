// A saved report's page: its charts from its data. Without this script the page still has every
// verdict and every table.
import { CHARTS } from "./charts.js";
import { draw, enliven, fit, themeOf } from "./figures.js";

const DATA = JSON.parse(document.getElementById("data").textContent);
const figures = [...document.querySelectorAll("figure[data-chart]")];
const root = document.documentElement;

function drawOne(figure) {
  const choices = { operation: "", figure: "p99" };
  for (const select of figure.querySelectorAll("select")) choices[select.name] = select.value;
  draw(figure, CHARTS[figure.dataset.chart](DATA, themeOf(), choices));
}

function drawAll() {
  figures.forEach(drawOne);
}

for (const figure of figures) {
  figure.hidden = false;
  enliven(figure);
  for (const select of figure.querySelectorAll("select")) {
    select.addEventListener("change", () => drawOne(figure));
  }
}
drawAll();

new ResizeObserver(fit).observe(document.querySelector("main"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
// A canvas keeps the colours and the width it was drawn with, and paper is light and narrow.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details.run")) details.open = true;
  root.classList.add("light");
  drawAll();
});
addEventListener("afterprint", () => {
  root.classList.remove("light");
  drawAll();
});
root.dataset.drawn = String(figures.length);
performance.mark("drawn");
