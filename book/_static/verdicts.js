// The table of verdicts can be narrowed to a paper and to an outcome, which then stand in the address.
document.addEventListener("DOMContentLoaded", () => {
  const tables = [...document.querySelectorAll(".verdicts table")];
  if (!tables.length) return;
  const rows = tables.flatMap((table) => [...table.tBodies[0].rows]);
  const papers = { W: "Khritankov et al.", S: "Wei et al.", D: "Wang et al.", H: "Kamath et al.", N: "Our own" };
  const facts = rows.map((row) => ({
    paper: papers[row.cells[0].textContent.trim()[0]],
    outcome: row.cells[2].textContent.trim(),
  }));
  const bar = document.createElement("form");
  bar.className = "verdict-filter";
  const count = document.createElement("output");
  const chosen = {};
  const asked = new URLSearchParams(location.search);
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
  const remember = () => {
    for (const [name, select] of Object.entries(chosen))
      if (select.value) asked.set(name, select.value);
      else asked.delete(name);
    const query = asked.toString();
    history.replaceState(null, "", location.pathname + (query && `?${query}`) + location.hash);
    narrow();
  };
  for (const name of ["paper", "outcome"]) {
    const label = document.createElement("label");
    const select = document.createElement("select");
    select.add(new Option("all", ""));
    [...new Set(facts.map((fact) => fact[name]))].forEach((value) => select.add(new Option(value, value)));
    if ([...select.options].some((option) => option.value === asked.get(name)))
      select.value = asked.get(name);
    select.addEventListener("change", remember);
    chosen[name] = select;
    label.append(`${name} `, select);
    bar.append(label);
  }
  bar.append(count);
  tables[0].closest("section").before(bar);
  narrow();
});
