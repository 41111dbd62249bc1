// The table of models: sorting by any column, filtering by facets and text.
"use strict";
(() => {
  const table = document.getElementById("zoo");
  const body = table.tBodies[0];
  const rows = [...body.rows]; // in table order
  const form = document.getElementById("filters");
  const search = document.getElementById("search");
  const choice = document.getElementById("sort");
  const headers = [...table.tHead.rows[0].cells].filter((cell) => cell.dataset.key);

  const valueOf = (row, key) => {
    const text = row.querySelector(`[data-key="${key}"]`).dataset.sort;
    return text !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));

  // What is searched, chosen and sorted stands in the address, so that it can be sent and the way back leads to it.
  const chosen = (set) => [...set.querySelectorAll("input:checked")].map((input) => input.value);
  const sets = [...form.querySelectorAll("fieldset")];
  let isRead = false;
  const writeAddress = () => {
    if (!isRead) return;
    const state = new URLSearchParams();
    if (search.value.trim()) state.set("q", search.value.trim());
    for (const set of sets) for (const value of chosen(set)) state.append(set.dataset.filter, value);
    if (choice.value) state.set("sort", choice.value);
    const query = state.toString();
    try {
      history.replaceState(null, "", `${location.pathname}${query && "?"}${query}${location.hash}`);
    } catch {
      // a browser may refuse it to a page from disk, or to one that writes too often
    }
  };
  const readAddress = () => {
    const state = new URLSearchParams(location.search);
    search.value = state.get("q") ?? "";
    for (const set of sets) {
      const wanted = state.getAll(set.dataset.filter);
      for (const input of set.querySelectorAll("input")) input.checked = wanted.includes(input.value);
    }
    const [key, direction] = (state.get("sort") ?? "").split(":");
    const isKnown = headers.some((header) => header.dataset.key === key) && ["ascending", "descending"].includes(direction);
    sortBy(...(isKnown ? [key, direction] : ["", "none"]));
    isRead = true;
    filter();
  };

  const sortBy = (key, direction) => {
    for (const header of headers) header.setAttribute("aria-sort", header.dataset.key === key ? direction : "none");
    choice.value = key ? `${key}:${direction}` : "";
    const sign = direction === "descending" ? -1 : 1;
    writeAddress();
    const order = key ? [...rows].sort((a, b) => sign * compare(valueOf(a, key), valueOf(b, key))) : rows;
    body.append(...order);
  };

  for (const header of headers) {
    header.querySelector("button").addEventListener("click", () => {
      const now = header.getAttribute("aria-sort");
      const first = header.classList.contains("number") ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      if (now === "none") sortBy(header.dataset.key, first);
      else if (now === first) sortBy(header.dataset.key, second);
      else sortBy("", "none"); // back to table order
    });
  }
  choice.addEventListener("change", () => sortBy(...(choice.value ? choice.value.split(":") : ["", "none"])));

  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const facets = sets.map((set) => ({ key: set.dataset.filter, wanted: chosen(set) }));
    let shown = 0;
    for (const row of rows) {
      const fits = facets.every(({ key, wanted }) => !wanted.length || wanted.includes(row.dataset[key]));
      row.hidden = !(fits && words.every((word) => row.dataset.text.includes(word)));
      if (!row.hidden) shown += 1;
    }
    document.getElementById("count").textContent = `${shown} of ${rows.length} models`;
    document.getElementById("nothing").hidden = shown > 0;
    table.hidden = shown === 0;
    writeAddress();
  };

  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { sortBy("", "none"); filter(); })); // after the fields are empty
  document.getElementById("clear").addEventListener("click", () => { form.reset(); search.focus(); });
  form.hidden = false;
  readAddress();
  addEventListener("pageshow", (event) => { if (!event.persisted) readAddress(); }); // after the browser restores fields
})();
