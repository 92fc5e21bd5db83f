// A table with a column for each scale of the logits becomes a slider with a bar a row: orange where the
// gradient of the loss fades as logits grow, blue where it does not.
// Without this script, and in print, it stays the table it is.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.logit-scale")) {
    const heads = [...table.tHead.rows[0].cells].slice(1).map((head) => head.textContent);
    if (heads.length < 2) continue;
    const label = document.createElement("label");
    const slider = document.createElement("input");
    const scale = document.createElement("output");
    const first = Math.max(0, heads.indexOf("times 1"));
    Object.assign(slider, { type: "range", min: 0, max: heads.length - 1, step: 1, value: first });
    for (const row of table.tBodies[0].rows) {
      const name = row.cells[0].textContent;
      const fades = /clipped|cross-entropy/.test(name);
      row.className = fades ? "fading" : name === "no attack" ? "unattacked" : "lasting";
    }
    const move = () => {
      const chosen = Number(slider.value) + 1;
      scale.textContent = `logits ${heads[slider.value]}`;
      slider.setAttribute("aria-valuetext", scale.textContent);
      for (const row of table.rows) {
        [...row.cells].slice(1).forEach((cell, index) => {
          cell.classList.toggle("unchosen", index + 1 !== chosen);
          cell.style.setProperty("--share", `${parseFloat(cell.textContent)}%`);
        });
      }
    };
    slider.addEventListener("input", move);
    label.append("scale of the logits ", slider);
    label.className = "logit-slider";
    label.append(scale);
    table.before(label);
    table.classList.add("live");
    move();
  }
});
