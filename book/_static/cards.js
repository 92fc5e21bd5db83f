// On a phone a row of a table becomes a card: each cell is told what stands over it.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll(".cards table")) {
    const heads = [...table.querySelectorAll("thead th")].map((head) => head.textContent.trim());
    for (const row of table.tBodies[0].rows)
      [...row.cells].forEach((cell, index) => { cell.dataset.head = heads[index]; });
  }
});
// An address that names what is folded opens it.
for (const when of ["DOMContentLoaded", "hashchange"])
  window.addEventListener(when, () => {
    const named = location.hash && document.getElementById(location.hash.slice(1));
    if (named) named.closest("details")?.setAttribute("open", "");
  });
