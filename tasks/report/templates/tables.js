"use strict";

// A heading sorts by its column, pressed again the other way round; what has no value stays last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const compare = {
    number: (a, b) => parseFloat(a) - parseFloat(b),
    text: (a, b) => a.localeCompare(b, undefined, { numeric: true }),
  };
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const descending = head.getAttribute("aria-sort") === "ascending";
    const order = compare[head.classList.contains("number") ? "number" : "text"];
    const value = (row) => row.cells[column].dataset.value;
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => {
      const [left, right] = [value(a), value(b)];
      if (left === "" || right === "") return (left === "") - (right === "");
      return order(left, right) * (descending ? -1 : 1);
    });
    table.tBodies[0].append(...rows);
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  }));
}

// Filters: those of the page hold everywhere, those of a section in it. What lacks a key is kept.
const filters = [...document.querySelectorAll("select[data-filter]")];
const pageWide = (select) => select.closest(".filters").classList.contains("page");
const chosen = (key) =>
  filters.find((select) => pageWide(select) && select.dataset.filter === key).value;

function applyFilters() {
  for (const element of document.querySelectorAll("[data-model], [data-arm]")) {
    element.hidden = filters.some((select) => {
      if (!select.value || !(select.dataset.filter in element.dataset)) return false;
      const scope = pageWide(select) ? document : select.closest("details");
      return scope.contains(element) && element.dataset[select.dataset.filter] !== select.value;
    });
  }
  for (const bar of document.querySelectorAll(".filters")) {
    const whole = bar.classList.contains("page");
    const scope = whole ? document : bar.closest("details");
    const rows = [...scope.querySelectorAll("tbody tr[data-model]")];
    const shown = rows.filter((row) => !row.hidden).length;
    bar.querySelector("output").textContent = `${shown} of ${rows.length} rows`;
  }
  dispatchEvent(new Event("filtered"));
}
filters.forEach((select) => select.addEventListener("change", applyFilters));
document.querySelector(".filters.page").hidden = false;
