// What scrolls can be reached and scrolled by keyboard, and dialogs have a name.
function reachable() {
  for (const one of document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code")) {
    one.tabIndex = 0;
    one.setAttribute("role", "region");
    one.setAttribute("aria-label", one.matches("code") ? "Code" : "Table");
  }
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
}
// After the theme has wrapped the tables.
addEventListener("load", () => setTimeout(reachable));
