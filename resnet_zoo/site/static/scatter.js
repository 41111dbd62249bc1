// Accuracy against FLOPs, parameters and speed. uPlot draws axes and lines; the marks are links laid over them, so
// that a keyboard and a screen reader reach every one.
"use strict";
(() => {
  const points = JSON.parse(document.getElementById("points").textContent);
  const styles = ["circle", "triangle", "square", "diamond"];
  const shapes = {
    circle: '<circle cx="8" cy="8" r="5.4"/>',
    triangle: '<path d="M8 2.2 14 13H2z"/>',
    square: '<path d="M3 3h10v10H3z"/>',
    diamond: '<path d="M8 1.5 14.5 8 8 14.5 1.5 8z"/>',
  };
  const datasets = [...new Set(points.map((point) => point.dataset))];
  const styleOf = (dataset) => datasets.indexOf(dataset) % styles.length;
  const markup = (dataset) => `<svg viewBox="0 0 16 16" aria-hidden="true">${shapes[styles[styleOf(dataset)]]}</svg>`;
  const off = new Set();
  const redraws = [];

  const legend = document.getElementById("legend");
  for (const dataset of datasets) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = `key series-${styleOf(dataset)}`;
    button.innerHTML = markup(dataset);
    button.append(dataset);
    button.setAttribute("aria-pressed", "true");
    button.addEventListener("click", () => {
      if (!off.delete(dataset)) off.add(dataset);
      button.setAttribute("aria-pressed", String(!off.has(dataset)));
      for (const redraw of redraws) redraw();
    });
    legend.append(button);
  }

  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  const showTip = (link, point, value) => {
    tip.replaceChildren();
    for (const [tag, text] of [["b", `${point.title} · ${point.dataset}`], ["span", `top-1 ${point.top1.toFixed(2)} %, ${point.state}`], ["span", value]]) {
      const line = document.createElement(tag);
      line.textContent = text;
      tip.append(line);
    }
    tip.hidden = false;
    const box = link.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(above > 0 ? above : box.bottom + 8) + scrollY}px`;
  };
  const hideTip = () => { tip.hidden = true; };
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

  const draw = (figure, width) => {
    const { plot: key, unit, title } = figure.dataset;
    const place = figure.querySelector(".plot");
    const shown = points.filter((point) => point[key] !== null && !off.has(point.dataset));
    place.replaceChildren();
    if (!shown.length) {
      place.innerHTML = '<p class="empty">No data set is chosen.</p>';
      return null;
    }
    const groups = [...new Set(shown.map((point) => `${point.dataset} ${point.family}`))].map((name) => shown.filter((point) => `${point.dataset} ${point.family}` === name));
    const xs = [...new Set(shown.map((point) => point[key]))].sort((a, b) => a - b);
    const best = (group, x) => Math.max(...group.filter((point) => point[key] === x).map((point) => point.top1));
    const columns = groups.map((group) => xs.map((x) => (group.some((point) => point[key] === x) ? best(group, x) : null)));
    const tops = shown.map((point) => point.top1);
    const low = xs[0] / 1.3;
    const high = xs.at(-1) * 1.3;
    const placeMarks = (u) => {
      for (const point of [...shown].sort((a, b) => a[key] - b[key])) {
        const link = document.createElement("a");
        const value = `${title} ${point[key].toPrecision(4).replace(/\.?0+$/, "")} ${unit}`;
        link.href = point.page;
        link.className = `mark-link series-${styleOf(point.dataset)}${point.state === "matches" ? " is-checked" : ""}`;
        link.style.left = `${u.valToPos(point[key], "x")}px`;
        link.style.top = `${u.valToPos(point.top1, "y")}px`;
        link.setAttribute("aria-label", `${point.name}: top-1 ${point.top1.toFixed(2)} % (${point.state}), ${value}`);
        link.innerHTML = markup(point.dataset);
        for (const event of ["mouseenter", "focus"]) link.addEventListener(event, () => showTip(link, point, value));
        for (const event of ["mouseleave", "blur"]) link.addEventListener(event, hideTip);
        u.over.append(link);
      }
    };
    const chart = new uPlot({
      hooks: { ready: [placeMarks] }, // not before the scales are known
      width,
      height: 300,
      legend: { show: false },
      cursor: { show: false },
      padding: [12, 12, 0, 0],
      scales: {
        x: { time: false, distr: 3, range: [low, high] },
        y: { range: [Math.floor(Math.min(...tops) - 1), Math.min(100, Math.ceil(Math.max(...tops) + 1))] },
      },
      axes: [
        Charts.axis({ splits: () => Charts.niceSteps(low, high), filter: (_, steps) => steps, values: (_, steps) => steps.map(String), size: 30 }),
        Charts.axis({ size: 38, space: 36, values: (_, steps) => steps.map((step) => `${step}`) }),
      ],
      series: [
        {},
        ...groups.map(([first]) => ({
          stroke: Charts.colour(`--series-${styleOf(first.dataset)}`),
          width: 1.5,
          alpha: 0.45,
          dash: first.family === "ResNet" ? [] : [5, 4],
          spanGaps: true,
          points: { show: false },
        })),
      ],
    }, [xs, ...columns], place);
    chart.root.querySelector("canvas").setAttribute("aria-hidden", "true");
    return chart;
  };

  for (const figure of document.querySelectorAll("figure[data-plot]")) {
    if (points.some((point) => point[figure.dataset.plot] !== null)) {
      redraws.push(Charts.keepDrawn(figure.querySelector(".plot"), (width) => draw(figure, width)));
    }
  }
})();
