// Accuracy against FLOPs, parameters and speed. uPlot draws axes and lines; the marks are links laid over them, so
// that a keyboard and a screen reader reach every one.
"use strict";
(() => {
  const points = JSON.parse(document.getElementById("points").textContent);
  const shapes = ['<circle cx="8" cy="8" r="5.4"/>', '<path d="M3 3h10v10H3z"/>'];
  const families = [...new Set(points.map((point) => point.family))];
  const styleOf = (family) => families.indexOf(family) % shapes.length;
  const markup = (family) => `<svg viewBox="0 0 16 16" aria-hidden="true">${shapes[styleOf(family)]}</svg>`;

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

  const pointsOf = ({ dataset }) => points.filter((point) => point.dataset === dataset.dataset && point[dataset.plot] !== null);
  // Depths stand below the marks of the first family, above those of the second, and beside variants.
  const besideOf = (point) => (/^\d*$/.test(point.label) ? (styleOf(point.family) ? " is-above" : "") : " is-beside");

  const draw = (figure, width) => {
    const { plot: key, unit, title } = figure.dataset;
    const place = figure.querySelector(".plot");
    const shown = pointsOf(figure);
    place.replaceChildren();
    const groups = families.map((name) => shown.filter((point) => point.family === name)).filter((group) => group.length);
    const xs = [...new Set(shown.map((point) => point[key]))].sort((a, b) => a - b);
    const best = (group, x) => Math.max(...group.filter((point) => point[key] === x).map((point) => point.top1));
    const columns = groups.map((group) => xs.map((x) => (group.some((point) => point[key] === x) ? best(group, x) : null)));
    const tops = shown.map((point) => point.top1);
    const margin = Math.max(0.2, 0.16 * (Math.max(...tops) - Math.min(...tops)));
    const low = xs[0] / 1.3;
    const high = xs.at(-1) * 1.3;
    const placeMarks = (u) => {
      for (const point of [...shown].sort((a, b) => a[key] - b[key])) {
        const link = document.createElement("a");
        const value = `${title} ${point[key].toPrecision(4).replace(/\.?0+$/, "")} ${unit}`;
        link.href = point.page;
        link.className = `mark-link series-${styleOf(point.family)}${point.state === "matches" ? " is-checked" : ""}`;
        link.style.left = `${u.valToPos(point[key], "x")}px`;
        link.style.top = `${u.valToPos(point.top1, "y")}px`;
        link.setAttribute("aria-label", `${point.name}: top-1 ${point.top1.toFixed(2)} % (${point.state}), ${value}`);
        link.innerHTML = markup(point.family);
        const depth = document.createElement("span");
        depth.className = `depth${besideOf(point)}`;
        depth.textContent = point.label;
        depth.setAttribute("aria-hidden", "true");
        link.append(depth);
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
        y: { range: [Math.min(...tops) - margin, Math.max(...tops) + margin] },
      },
      axes: [
        Charts.axis({ splits: () => Charts.niceSteps(low, high), filter: (_, steps) => steps, values: (_, steps) => steps.map(String), size: 30 }),
        Charts.axis({ size: 42, space: 36, values: (_, steps) => steps.map((step) => `${Number(step.toFixed(2))}`) }),
      ],
      series: [
        {},
        ...groups.map(([first]) => ({
          stroke: Charts.colour(`--series-${styleOf(first.family)}`),
          width: 1.5,
          alpha: 0.45,
          dash: styleOf(first.family) ? [5, 4] : [],
          spanGaps: true,
          points: { show: false },
        })),
      ],
    }, [xs, ...columns], place);
    chart.root.querySelector("canvas").setAttribute("aria-hidden", "true");
    return chart;
  };

  for (const figure of document.querySelectorAll("figure[data-plot]")) {
    if (pointsOf(figure).length) Charts.keepDrawn(figure.querySelector(".plot"), (width) => draw(figure, width));
  }
})();
