// A table that scrolls sideways takes the focus, so that the arrow keys scroll it.
const watched = new ResizeObserver((found) => {
  for (const { target } of found) {
    const isCut = target.scrollWidth > target.clientWidth;
    for (const [name, value] of [["tabindex", "0"], ["role", "region"], ["aria-label", "Table that scrolls sideways"]]) {
      if (isCut) target.setAttribute(name, value);
      else target.removeAttribute(name);
    }
  }
});
document$.subscribe(() => setTimeout(() => {
  for (const table of document.querySelectorAll(".md-typeset__scrollwrap")) watched.observe(table);
}));
