// The table of verdicts can be narrowed to a paper and to an outcome.
document.addEventListener("DOMContentLoaded", () => {
  const tables = [...document.querySelectorAll(".verdicts table")];
  if (!tables.length) return;
  const rows = tables.flatMap((table) => [...table.tBodies[0].rows]);
  const papers = { W: "Khritankov et al.", S: "Wei et al.", D: "Wang et al.", H: "Kamath et al." };
  const facts = rows.map((row) => ({
    paper: papers[row.cells[0].textContent.trim()[0]],
    outcome: row.cells[2].textContent.trim(),
  }));
  const bar = document.createElement("form");
  bar.className = "verdict-filter";
  const count = document.createElement("output");
  const chosen = {};
  const narrow = () => {
    let shown = 0;
    rows.forEach((row, index) => {
      row.hidden = Object.entries(chosen).some(([name, select]) =>
        select.value && facts[index][name] !== select.value);
      shown += row.hidden ? 0 : 1;
    });
    for (const table of tables)
      table.closest("section").hidden = [...table.tBodies[0].rows].every((row) => row.hidden);
    count.textContent = `${shown} of ${rows.length} claims`;
  };
  for (const name of ["paper", "outcome"]) {
    const label = document.createElement("label");
    const select = document.createElement("select");
    select.add(new Option("all", ""));
    [...new Set(facts.map((fact) => fact[name]))].forEach((value) => select.add(new Option(value, value)));
    select.addEventListener("change", narrow);
    chosen[name] = select;
    label.append(`${name} `, select);
    bar.append(label);
  }
  bar.append(count);
  tables[0].closest("section").before(bar);
  narrow();
});
