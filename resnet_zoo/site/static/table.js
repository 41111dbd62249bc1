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

  const sortBy = (key, direction) => {
    for (const header of headers) header.setAttribute("aria-sort", header.dataset.key === key ? direction : "none");
    choice.value = key ? `${key}:${direction}` : "";
    const sign = direction === "descending" ? -1 : 1;
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
    const facets = [...form.querySelectorAll("fieldset")].map((set) => ({
      key: set.dataset.filter,
      wanted: [...set.querySelectorAll("input:checked")].map((input) => input.value),
    }));
    let shown = 0;
    for (const row of rows) {
      const fits = facets.every(({ key, wanted }) => !wanted.length || wanted.includes(row.dataset[key]));
      row.hidden = !(fits && words.every((word) => row.dataset.text.includes(word)));
      if (!row.hidden) shown += 1;
    }
    document.getElementById("count").textContent = `${shown} of ${rows.length} models`;
    document.getElementById("nothing").hidden = shown > 0;
    table.hidden = shown === 0;
  };

  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { sortBy("", "none"); filter(); })); // after the fields are empty
  document.getElementById("clear").addEventListener("click", () => { form.reset(); search.focus(); });
  form.hidden = false;
  filter(); // a reload keeps what was typed
})();
