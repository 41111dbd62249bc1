// What both kinds of plot share: colours of the theme, axes, redrawing when the theme or the width changes.
"use strict";
const Charts = (() => {
  // Canvas knows no CSS variables: let the browser resolve them on an element.
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const colour = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };

  const font = () => `12px ${getComputedStyle(document.body).fontFamily}`;
  const axis = (options) => ({
    stroke: colour("--muted"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
    font: font(),
    ...options,
  });

  // 1, 2 and 5 times the powers of ten that lie in a range, for logarithmic axes.
  const niceSteps = (low, high) => {
    const steps = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
      for (const digit of [1, 2, 5]) steps.push(Number(`${digit}e${power}`));
    }
    return steps.filter((step) => step >= low && step <= high);
  };

  // Call draw(width) now, after a change of theme and after a change of width; it returns the chart to destroy then.
  const keepDrawn = (place, draw) => {
    let chart = null;
    let width = 0;
    const redraw = () => {
      chart?.destroy();
      chart = draw(width);
    };
    const observer = new ResizeObserver(([entry]) => {
      const found = Math.floor(entry.contentRect.width);
      if (found === width || found === 0) return;
      width = found;
      redraw();
    });
    observer.observe(place);
    document.addEventListener("themechange", () => width && redraw());
    return () => width && redraw();
  };

  return { colour, axis, niceSteps, keepDrawn };
})();
