// On every page: what draws the plots is read late; copy buttons.
"use strict";
(() => {
  const later = document.getElementById("later");
  if (later) {
    for (const script of later.content.querySelectorAll("script")) script.async = false; // one after the other
    requestAnimationFrame(() => setTimeout(() => document.body.append(later.content))); // the text is painted first
  }

  // A table that is wider than the window says so, in words too.
  for (const scroller of document.querySelectorAll(".scroller")) {
    const note = document.createElement("p");
    note.className = "scroll-note";
    note.textContent = "Scroll sideways to see the whole of it";
    note.setAttribute("aria-hidden", "true"); // a screen reader reads all of it anyway
    note.hidden = true;
    scroller.before(note);
    new ResizeObserver(() => { note.hidden = scroller.scrollWidth <= scroller.clientWidth + 1; }).observe(scroller);
  }

  const write = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea"); // no permission, or no secure context
      area.value = text;
      area.style.position = "fixed";
      area.style.opacity = "0";
      document.body.append(area);
      area.select();
      const copied = document.execCommand("copy");
      area.remove();
      if (!copied) throw new Error("the browser does not let this page copy");
    }
  };

  const status = document.createElement("p");
  status.className = "hidden";
  status.setAttribute("role", "status");
  document.body.append(status);

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    let said = "copied";
    try {
      await write(button.dataset.copy);
    } catch {
      said = "failed";
    }
    button.textContent = said;
    button.classList.toggle("done", said === "copied");
    status.textContent = `${button.getAttribute("aria-label")}: ${said}`;
    button.focus({ preventScroll: true });
    setTimeout(() => {
      button.textContent = "copy";
      button.classList.remove("done");
    }, 1500);
  });
})();
