// Charts as pure functions: figures and a theme in, uPlot's options and data out. Nothing here
// touches the page, so a saved report and a live page draw the same charts. uPlot is a global.
//
// A line is {label, values, color, dash, fill, low, high}: `values` has one entry for each x, null
// where there is none; `low` and `high`, where given, are a band around it.

const HEIGHT = 260;
// Seconds between the marks of a time axis.
const STEPS_OF_TIME = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800].concat(
  [1, 2, 3, 6, 12, 24, 48, 96].map((hours) => hours * 3600),
);
const SANS = "12px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
// Beyond this ratio of the largest to the smallest latency a linear axis shows the largest only.
const WIDE = 30;

/** A duration in milliseconds, with the digits that matter and its unit. */
export function milliseconds(ms) {
  if (ms == null) return "–";
  if (ms === 0) return "0";
  if (ms < 0.1) return `${significant(ms * 1000)} µs`;
  return ms < 1000 ? `${significant(ms)} ms` : `${significant(ms / 1000)} s`;
}

/** A number of things, with its thousands told apart. */
export function count(n) {
  if (n == null) return "–";
  return n.toLocaleString("en-US", { maximumFractionDigits: n < 10 ? 2 : n < 100 ? 1 : 0 });
}

/** Operations a second. */
export function perSecond(n) {
  return n == null ? "–" : `${count(n)}/s`;
}

/** Seconds since the start, as 12.5 s, 2:05 or 1:02:05. */
export function elapsed(seconds) {
  if (seconds == null) return "–";
  if (seconds < 60) return `${+seconds.toFixed(2)} s`;
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (!parts[0]) parts.shift();
  return parts.map((part, n) => (n ? String(part).padStart(2, "0") : part)).join(":");
}

/** The percentile that 1 / (1 - share) stands for: 100 is 99%, 1000 is 99.9%. */
export function percentile(inverse) {
  if (inverse == null) return "–";
  const digits = Math.max(0, Math.ceil(Math.log10(inverse) - 1e-9) - 2) + (inverse % 1 ? 1 : 0);
  return `${(100 - 100 / inverse).toFixed(Math.min(digits, 6))}%`;
}

// --- what each chart shows ------------------------------------------------------------------

/** The charts by name: of what page_data.py makes of one run or of several, with a theme. */
export const CHARTS = {
  load(data, theme) {
    const { by, level, throughput, latency, knee } = data.load;
    const lines = [{ label: "Throughput", values: throughput, color: color(theme, 0), scale: "y" }];
    Object.entries(latency).forEach(([label, values], n) => {
      lines.push({ label, values, color: color(theme, n + 1), dash: [6, 3], scale: "ms" });
    });
    return loadChart({ x: level, lines, knee, by, theme });
  },

  throughput(data, theme) {
    const lines = data.runs.map((run, n) => ({
      ...styled(theme, n),
      label: data.runs.length > 1 ? run.label : "Ended well",
      values: run.throughput.mean,
      low: run.throughput.low,
      high: run.throughput.high,
      shade: `${color(theme, n)}33`,
      fill: data.runs.length > 1 || run.throughput.low ? undefined : `${color(theme, n)}22`,
    }));
    for (const run of data.runs) {
      if (run.failed.some((value) => value)) {
        const label = data.runs.length > 1 ? `${run.label}: not` : "Did not";
        lines.push({ label, values: run.failed, color: theme.bad });
      }
    }
    return timeChart({ x: data.seconds, lines, unit: perSecond, theme });
  },

  latency(data, theme, { operation, figure }) {
    const drawn = data.runs.filter((run) => has(run.slices?.by_operation, operation));
    const lines = [];
    const tables = drawn.map((run) => {
      const found = run.slices.by_operation[operation];
      const shown = data.runs.length > 1 ? [figure] : Object.keys(found);
      for (const name of shown) {
        const n = data.runs.length > 1 ? data.runs.indexOf(run) : lines.length;
        lines.push({ ...styled(theme, n), label: data.runs.length > 1 ? run.label : name });
      }
      return [run.slices.seconds, ...shown.map((name) => found[name])];
    });
    const [x, ...values] = tables.length > 1 ? uPlot.join(tables) : (tables[0] ?? [[]]);
    lines.forEach((line, n) => (line.values = values[n]));
    return timeChart({ x, lines, unit: milliseconds, theme });
  },

  connections(data, theme) {
    const lines = data.runs.map((run, n) => ({
      ...styled(theme, n),
      label: data.runs.length > 1 ? run.label : "In use",
      values: run.in_use,
    }));
    if (data.runs.length === 1) {
      const [run] = data.runs;
      lines.push({ label: "Waiting for one", values: run.waiting, ...styled(theme, 2) });
      if (run.pool_size) {
        const values = data.seconds.map(() => run.pool_size);
        lines.push({ label: "Pool size", values, color: theme.dim, dash: [4, 4] });
      }
    }
    return timeChart({ x: data.seconds, lines, unit: count, theme });
  },

  percentiles(data, theme, { operation }) {
    const lines = [];
    data.runs.forEach((run, n) => {
      const every = Object.keys(run.percentiles);
      const few = every.length <= theme.colors.length ? every : ["", operation];
      const names = data.runs.length > 1 ? [operation] : new Set(few);
      for (const name of [...names].filter((each) => has(run.percentiles, each))) {
        const at = data.runs.length > 1 ? n : lines.length;
        const label = data.runs.length > 1 ? run.label : name || "All operations";
        lines.push({ ...styled(theme, at), label, values: run.percentiles[name] });
      }
    });
    return percentileChart({ x: data.inverse, lines, theme });
  },
};

// An operation may well be called "constructor", which every object has.
function has(values, name) {
  return values != null && Object.hasOwn(values, name);
}

function color(theme, n) {
  return theme.colors[n % theme.colors.length];
}

// More lines than colours: those after the eighth are dashed.
function styled(theme, n) {
  return { color: color(theme, n), dash: n < theme.colors.length ? undefined : [6, 4] };
}

// --- how it is drawn ------------------------------------------------------------------------

/** Lines over the seconds of a run. */
export function timeChart({ x, lines, unit, theme, sync = "time" }) {
  return {
    data: [x, ...lines.flatMap(columns)],
    options: {
      ...common(),
      cursor: { ...cursor(), sync: { key: sync } },
      scales: { x: { time: false }, y: { range: fromZero } },
      axes: [
        axis(theme, {
          values: (_, splits) => splits.map(elapsed),
          incrs: STEPS_OF_TIME,
          space: 70,
          size: 30,
        }),
        axis(theme, { values: (_, splits) => splits.map(unit), size: wideEnough }),
      ],
      series: [{ label: "Time", value: (_, v) => elapsed(v) }, ...seriesOf(lines, unit)],
      bands: bandsOf(lines),
    },
  };
}

/**
 * What more load brings: lines of operations a second against the left axis, of latencies against
 * the right one, over loads on a log axis; `knee` is the load to run at, null for none.
 */
export function loadChart({ x, lines, knee, by, theme }) {
  const level = (v) => (v == null ? "–" : by === "rate" ? `${count(v)}/s` : count(v));
  const dots = { show: true, size: 6 };
  return {
    data: [x, ...lines.map((line) => line.values)],
    options: {
      ...common(),
      padding: [10, 0, 0, 0],
      cursor: cursor(),
      scales: {
        x: { time: false, distr: 3, range: (_, min, max) => [min / 1.15, max * 1.15] },
        y: { range: fromZero },
        ms: { range: fromZero },
      },
      axes: [
        axis(theme, {
          splits: (plot, _, min, max) => roomy([...x], min, max, plot),
          values: (_, splits) => splits.map(level),
          filter: (_, splits) => splits,
          size: 30,
        }),
        axis(theme, { values: (_, splits) => splits.map(perSecond), size: wideEnough }),
        axis(theme, {
          scale: "ms",
          side: 1,
          values: (_, splits) => splits.map(milliseconds),
          size: wideEnough,
          grid: { show: false },
        }),
      ],
      series: [
        { label: by === "rate" ? "Rate" : "Concurrency", value: (_, v) => level(v) },
        ...lines.map((line) => ({
          ...seriesOf([line], line.scale === "ms" ? milliseconds : perSecond)[0],
          scale: line.scale,
          points: { ...dots, fill: line.color },
        })),
      ],
      hooks: { drawAxes: knee == null ? [] : [(plot) => mark(plot, knee, theme)] },
    },
  };
}

/** A dashed line up from a place on the x axis. */
function mark(plot, place, theme) {
  const { ctx, bbox } = plot;
  const x = Math.round(plot.valToPos(place, "x", true));
  ctx.save();
  ctx.strokeStyle = theme.dim;
  ctx.lineWidth = 2;
  ctx.setLineDash([5, 4]);
  ctx.beginPath();
  ctx.moveTo(x, bbox.top);
  ctx.lineTo(x, bbox.top + bbox.height);
  ctx.stroke();
  ctx.restore();
}

/** Latencies by percentile; x is 1 / (1 - share) on a log axis, so each nine has the same room. */
export function percentileChart({ x, lines, theme }) {
  const found = lines.flatMap((line) => line.values).filter((value) => value > 0);
  const wide = Math.max(...found) > WIDE * Math.min(...found);
  return {
    data: [x, ...lines.flatMap(columns)],
    options: {
      ...common(),
      padding: [10, 34, 0, 0], // half of the last percentile's label
      cursor: cursor(),
      scales: {
        x: { time: false, distr: 3, range: (_, min, max) => [Math.max(1, min), max] },
        y: wide ? { distr: 3, range: (_, min, max) => [min * 0.9, max * 1.2] } : { range: fromZero },
      },
      axes: [
        axis(theme, {
          splits: (plot, _, min, max) => roomy(nines(min, max), min, max, plot),
          values: (_, splits) => splits.map(percentile),
          filter: (_, splits) => splits,
          size: 30,
        }),
        axis(theme, {
          ...(wide ? { splits: (_, __, min, max) => rounds(min, max), filter: (_, splits) => splits } : {}),
          values: (_, splits) => splits.map(milliseconds),
          size: wideEnough,
        }),
      ],
      series: [
        { label: "Percentile", value: (_, v) => percentile(v) },
        ...seriesOf(lines, milliseconds),
      ],
    },
  };
}

function significant(value) {
  return +value.toPrecision(3);
}

function columns(line) {
  return line.low ? [line.values, line.high, line.low] : [line.values];
}

function seriesOf(lines, unit) {
  return lines.flatMap(({ label, color, dash, fill, low }) => {
    const series = {
      label,
      stroke: color,
      width: 1.75,
      dash,
      fill,
      value: (_, v) => unit(v),
      points: { show: true, size: 4, fill: color, filter: lonely },
    };
    // The band's edges carry no line, and no row in the legend (see report.css).
    const edge = { stroke: "transparent", width: 0, class: "edge", points: { show: false } };
    return low ? [series, { ...edge, label: `${label}, most` }, { ...edge, label: `${label}, least` }] : [series];
  });
}

/**
 * The points without a neighbour, which no line would show. Where series of different x were
 * joined, undefined is what another series' x left; null is nothing, and ends a line.
 */
function lonely(plot, n) {
  const values = plot.data[n];
  const beside = (at, step) => {
    do at += step;
    while (values[at] === undefined && at >= 0 && at < values.length);
    return values[at];
  };
  const found = [];
  values.forEach((value, at) => {
    if (value != null && beside(at, -1) == null && beside(at, 1) == null) found.push(at);
  });
  return found;
}

function bandsOf(lines) {
  const bands = [];
  let at = 1;
  for (const line of lines) {
    if (line.low) bands.push({ series: [at + 1, at + 2], fill: line.shade });
    at += line.low ? 3 : 1;
  }
  return bands;
}

function common() {
  return {
    height: HEIGHT,
    padding: [10, 12, 0, 0],
    legend: { live: true, markers: { width: 3 } },
    focus: { alpha: 0.25 },
  };
}

function cursor() {
  return {
    focus: { prox: 20 },
    drag: { x: true, y: false },
    points: { size: 7, width: 2 },
  };
}

function axis(theme, more) {
  return {
    stroke: theme.dim,
    font: SANS,
    grid: { stroke: theme.grid, width: 1 },
    ticks: { stroke: theme.grid, width: 1, size: 4 },
    gap: 6,
    ...more,
  };
}

/** Room for the widest of an axis' labels, in pixels of the page. */
function wideEnough(plot, values) {
  const longest = Math.max(0, ...(values ?? []).map((text) => String(text ?? "").length));
  return Math.max(44, 14 + longest * 7);
}

function fromZero(_, __, max) {
  return [0, max > 0 ? max * 1.08 : 1];
}

/** 0%, 50%, 90%, 99% and on, as 1 / (1 - share). */
function nines(min, max) {
  const splits = [1, 2];
  for (let inverse = 10; inverse <= max; inverse *= 10) splits.push(inverse);
  return splits.filter((inverse) => inverse >= min && inverse <= max);
}

/** The splits of a log axis that have room for a label of their own. */
function roomy(splits, min, max, plot) {
  const width = plot.bbox.width / devicePixelRatio || plot.width;
  const place = (split) => (width * Math.log(split / min)) / Math.log(max / min);
  let last = -Infinity;
  return splits.filter((split) => {
    const fits = place(split) - last > 46;
    if (fits) last = place(split);
    return fits;
  });
}

/** 1, 2, 5, 10, 20 and on, or only the tens where there are many. */
function rounds(min, max) {
  const steps = max / min > 1000 ? [1] : [1, 2, 5];
  const splits = [];
  for (let ten = 10 ** Math.floor(Math.log10(min)); ten <= max; ten *= 10) {
    splits.push(...steps.map((step) => step * ten));
  }
  return splits.filter((split) => split >= min && split <= max);
}
