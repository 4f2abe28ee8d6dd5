// What axe finds wrong in the theme: a dialog and boxes without a name, and wide tables that no key can scroll.
document$.subscribe(() => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  for (const box of document.querySelectorAll(".task-list-item input")) {
    box.setAttribute("aria-label", box.closest("li").textContent.trim());
  }
  for (const table of document.querySelectorAll(".md-typeset__scrollwrap")) {
    if (table.scrollWidth > table.clientWidth) table.tabIndex = 0;
  }
});
