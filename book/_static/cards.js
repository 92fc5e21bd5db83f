// On a phone a row of a table becomes a card: each cell is told what stands over it.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll(".cards table")) {
    const heads = [...table.querySelectorAll("thead th")].map((head) => head.textContent.trim());
    for (const row of table.tBodies[0].rows)
      [...row.cells].forEach((cell, index) => { cell.dataset.head = heads[index]; });
  }
});
// A table that does not fit says so until it is moved to its end, by hand or by keys.
document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll(".cell_output .output.text_html")) {
    const tell = () => {
      const hidden = box.scrollWidth - box.clientWidth;
      if (hidden > 4) box.tabIndex = 0;
      box.classList.toggle("more", hidden - box.scrollLeft > 4);
    };
    box.addEventListener("scroll", tell);
    window.addEventListener("resize", tell);
    tell();
  }
});
// An address that names what is folded opens it.
for (const when of ["DOMContentLoaded", "hashchange"])
  window.addEventListener(when, () => {
    const named = location.hash && document.getElementById(location.hash.slice(1));
    if (named) named.closest("details")?.setAttribute("open", "");
  });
