// Training curves, a line a training; the values under the pointer stand in the legend, and all of them in a table.
"use strict";
(() => {
  const curves = JSON.parse(document.getElementById("curve-data").textContent);
  const last = Math.max(...curves.map((curve) => curve.epoch.at(-1)));
  const epochs = Array.from({ length: last }, (_, index) => index + 1);
  const column = (curve, key) => {
    const values = new Map(curve.epoch.map((epoch, index) => [epoch, curve[key][index]]));
    return epochs.map((epoch) => values.get(epoch) ?? null);
  };
  const dashes = [[], [7, 3], [2, 3], [7, 3, 2, 3]];

  const draw = (figure, width) => {
    const key = figure.dataset.curve;
    const place = figure.querySelector(".plot");
    const known = curves.filter((curve) => curve[key].some((value) => value !== null));
    place.replaceChildren();
    if (!known.length) {
      place.innerHTML = '<p class="empty">Not in the log.</p>';
      return null;
    }
    const series = known.map((curve) => {
      const index = curves.indexOf(curve);
      const stroke = Charts.colour(`--series-${index % 4}`);
      return {
        label: curves.length > 1 ? curve.title : figure.dataset.label,
        stroke,
        width: 2,
        dash: dashes[Math.floor(index / 4) % dashes.length],
        spanGaps: true,
        points: { show: last <= 40, size: 6, fill: stroke },
        value: (_, value) => (value === null ? "–" : key === "top1" ? value.toFixed(2) : Number(value.toPrecision(4)).toString()),
      };
    });
    const data = [epochs, ...known.map((curve) => column(curve, key))];
    if (key === "top1") {
      const note = known.every((curve) => curve.comparable) ? "published" : "published (other images)";
      series.push({ label: note, stroke: Charts.colour("--muted"), width: 1, dash: [6, 4], points: { show: false }, value: (_, value) => value?.toFixed(2) ?? "–" });
      data.push(epochs.map(() => known[0].published));
    }
    return new uPlot({
      width,
      height: 260,
      padding: [12, 12, 0, 0],
      cursor: { y: false, drag: { x: false, y: false } },
      scales: {
        x: { time: false, range: (_, low, high) => [Math.max(0, low - 0.5), high + 0.5] },
        y: { range: (_, low, high) => (key === "top1" ? [Math.max(0, low - 2), Math.min(100, high + 2)] : [0, high * 1.08]) },
      },
      axes: [
        Charts.axis({ size: 30, incrs: [1, 2, 5, 10, 20, 25, 50, 100, 200], values: (_, steps) => steps.map((step) => (Number.isInteger(step) ? `${step}` : "")) }),
        Charts.axis({ size: 52, space: 34, values: (_, steps) => steps.map((step) => Number(step.toPrecision(6)).toString()) }),
      ],
      series: [{ label: "epoch", value: (_, value) => (value === null ? "–" : `${value}`) }, ...series],
    }, data, place);
  };

  for (const figure of document.querySelectorAll("figure[data-curve]")) {
    Charts.keepDrawn(figure.querySelector(".plot"), (width) => draw(figure, width));
  }
})();
