"use strict";
// A click on a column's name sorts by it, a second one the other way.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[column];
        return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
      };
      const order = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1; // unknown ones last
        const less = typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true });
        return down ? -less : less;
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
    });
  });
}
// Paper can't be clicked on: what is folded is shown, but for long tables and figures' numbers.
const folded = () => document.querySelectorAll("details:not(.long):not(.data)");
addEventListener("beforeprint", () => folded().forEach((it) => {
  it.dataset.was = it.open ? "open" : "";
  it.open = true;
}));
addEventListener("afterprint", () => folded().forEach((it) => { it.open = it.dataset.was === "open"; }));
// While runs are missing: load anew, where the reader was, unless something is open or selected.
function reload(seconds) {
  const place = "olmo-mixlaw:" + location.pathname;
  try { scrollTo(0, Number(sessionStorage.getItem(place) || 0)); } catch { /* no storage */ }
  setInterval(() => {
    if (document.querySelector("details[open]") || String(getSelection())) return;
    try { sessionStorage.setItem(place, String(scrollY)); } catch { /* no storage */ }
    location.reload();
  }, 1000 * seconds);
}
