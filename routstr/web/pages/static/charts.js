// Draws every [data-chart] with uPlot from that attribute's JSON:
//   {"at": [unix seconds], "series": [{"name", "values": [number or null]}], "unit": "ms"}
// Colours come from app.css; the same numbers are in a table below for who cannot see a line.
(() => {
  "use strict";

  const HOUR_S = 3600;
  const DAY_S = 86400;
  const THIN = "\u2009";
  const drawn = new Map();

  // A token is light-dark(…): only the browser knows which of its two colours is meant.
  function colour(name) {
    const probe = document.createElement("i");
    probe.className = "probe";
    document.body.append(probe);
    probe.style.color = `var(--${name})`;
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  }

  function faint(found, share) {
    return found.replace(/^rgba?\((\d+), (\d+), (\d+).*$/, `rgba($1, $2, $3, ${share})`);
  }

  function said(value) {
    if (value === null || value === undefined) return "–";
    const digits = Math.abs(value) >= 100 || Number.isInteger(value) ? 0 : 2;
    return value.toLocaleString("en-US", { maximumFractionDigits: digits }).replaceAll(",", THIN);
  }

  function brief(value) {
    for (const [size, letter] of [
      [1e9, "G"],
      [1e6, "M"],
      [1e3, "k"],
    ]) {
      if (Math.abs(value) >= size) return `${said(Math.round((value / size) * 10) / 10)}${letter}`;
    }
    return said(value);
  }

  function two(number) {
    return String(number).padStart(2, "0");
  }

  function time(unix, span) {
    const date = new Date(unix * 1000);
    const day = `${date.getUTCFullYear()}-${two(date.getUTCMonth() + 1)}-${two(date.getUTCDate())}`;
    const clock = `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}`;
    if (span > 3 * DAY_S) return day.slice(5);
    return span > 20 * HOUR_S ? `${day.slice(5)} ${clock}` : clock;
  }

  function tip(plot, box, data) {
    const index = plot.cursor.idx;
    if (index === null || index === undefined || plot.cursor.left < 0) {
      box.hidden = true;
      return;
    }
    const span = data.at.at(-1) - data.at[0];
    const words = data.series.map((each) => {
      const value = `${said(each.values[index])}${data.unit ? ` ${data.unit}` : ""}`;
      return data.series.length > 1 ? `${each.name} ${value}` : value;
    });
    box.textContent = `${time(data.at[index], Math.min(span, DAY_S))} · ${words.join(" · ")}`;
    box.hidden = false;
    const left = plot.valToPos(data.at[index], "x") + plot.over.offsetLeft;
    const room = plot.root.clientWidth - box.offsetWidth;
    box.style.left = `${Math.max(0, Math.min(room, left - box.offsetWidth / 2))}px`;
  }

  // A value without neighbours makes no line: it is a point.
  function alone(plot, series) {
    const values = plot.data[series];
    return values.flatMap((value, at) =>
      value !== null && (values[at - 1] ?? values[at + 1] ?? null) === null ? [at] : [],
    );
  }

  function options(data, place, box) {
    const [accent, second, muted, line] = ["accent", "grey-8", "muted", "line"].map(colour);
    const span = data.at.at(-1) - data.at[0];
    const font = `11px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: muted, font, ticks: { show: false }, gap: 6 };
    return {
      width: place.clientWidth,
      height: place.clientHeight,
      legend: { show: false },
      padding: [8, 4, 0, 0],
      cursor: {
        y: false,
        drag: { x: false, y: false },
        sync: { key: "routstr" },
        points: { size: 6 },
      },
      scales: {
        x: { time: false },
        y: { range: (_, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * 1.1 : 1] },
      },
      axes: [
        {
          ...axis,
          grid: { show: false },
          size: 22,
          space: 72,
          values: (_, splits) => splits.map((at) => time(at, span)),
          incrs: [300, 600, 900, 1800, HOUR_S, 3 * HOUR_S, 6 * HOUR_S, 12 * HOUR_S, DAY_S].concat(
            [2, 5, 7, 14].map((days) => days * DAY_S),
          ),
        },
        {
          ...axis,
          grid: { stroke: line, width: 1 },
          size: 40,
          space: 32,
          values: (_, splits) => splits.map(brief),
        },
      ],
      series: [
        {},
        ...data.series.map((each, index) => ({
          label: each.name,
          stroke: index === 0 ? accent : second,
          fill: index === 0 && data.series.length === 1 ? faint(accent, 0.12) : undefined,
          width: 1.5,
          spanGaps: false,
          points: { show: true, size: 4, fill: index === 0 ? accent : second, filter: alone },
        })),
      ],
      hooks: { setCursor: [(plot) => tip(plot, box, data)] },
    };
  }

  function draw(figure) {
    forget(figure);
    const place = figure.querySelector("[data-plot]");
    const data = JSON.parse(figure.dataset.chart);
    if (!data.at.length || !place.clientWidth) return;
    const box = document.createElement("span");
    box.className = "tip";
    box.hidden = true;
    place.replaceChildren(box);
    const rows = [data.at, ...data.series.map((each) => each.values)];
    drawn.set(figure, new uPlot(options(data, place, box), rows, place));
    sizes.observe(place);
  }

  function forget(figure) {
    drawn.get(figure)?.destroy();
    drawn.delete(figure);
  }

  function drawAll(root) {
    for (const figure of drawn.keys()) if (!figure.isConnected) forget(figure);
    if (root.matches?.("[data-chart]")) draw(root);
    root.querySelectorAll("[data-chart]").forEach(draw);
  }

  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const plot = drawn.get(target.closest("[data-chart]"));
      if (plot && plot.width !== target.clientWidth && target.clientWidth) {
        plot.setSize({ width: target.clientWidth, height: target.clientHeight });
      }
    }
  });

  document.addEventListener("htmx:afterSettle", (event) => drawAll(event.target));
  document.documentElement.addEventListener("routstr:theme", () => drawAll(document));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(document));
  document.addEventListener("DOMContentLoaded", () => drawAll(document));
})();
