// The table of cases: sorts by a heading, filters by words and choices, opens a case's breakdown under its row.
"use strict";
(() => {
  const table = document.getElementById("cases"), body = table.tBodies[0], headings = [...table.tHead.rows[0].cells];
  const rows = [...body.rows], details = new Map();
  const find = document.getElementById("find"), choices = [...document.querySelectorAll("[data-filter]")];
  const words = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const order = new Map(rows.map((row, place) => [row, place]));
  const named = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  const place = () => {
    const all = document.createDocumentFragment();
    for (const row of rows) {
      all.append(row);
      if (details.has(row)) all.append(details.get(row));
    }
    body.append(all);
  };

  // What was not measured stays at the end, whichever way the rest is sorted.
  const sort = (column, direction) => {
    const cell = (row) => row.cells[column], numeric = headings[column].className === "number";
    const value = (row) => (cell(row).classList.contains("none") ? null : numeric ? Number(cell(row).dataset.value) : cell(row).textContent);
    rows.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null) || order.get(a) - order.get(b);
      return direction * (numeric ? x - y : named.compare(x, y)) || order.get(a) - order.get(b);
    });
    headings.forEach((heading, at) => heading.setAttribute("aria-sort", at !== column ? "none" : direction > 0 ? "ascending" : "descending"));
    place();
  };
  headings.forEach((heading, column) => heading.firstElementChild.addEventListener("click", () =>
    sort(column, heading.getAttribute("aria-sort") === "ascending" ? -1 : 1)));

  const filter = () => {
    const wanted = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const fits = wanted.every((word) => words.get(row).includes(word)) && choices.every((choice) => !choice.value || row.dataset[choice.dataset.filter] === choice.value);
      row.hidden = !fits;
      if (details.has(row)) details.get(row).hidden = !fits || row.querySelector(".open").ariaExpanded !== "true";
      shown += fits;
    }
    document.getElementById("count").textContent = `${shown} of ${rows.length} cases`;
  };
  find.addEventListener("input", filter);
  choices.forEach((choice) => choice.addEventListener("change", filter));
  // A count in the heading shows its cases.
  for (const chip of document.querySelectorAll(".chips [data-outcome]")) chip.addEventListener("click", () => {
    find.value = "";
    choices.forEach((choice) => { choice.value = choice.dataset.filter === "outcome" ? chip.dataset.outcome : ""; });
    filter();
  });
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());

  // A breakdown is made when it is first opened: five hundred of them at once would take seconds.
  const open = (row, wanted) => {
    const button = row.querySelector(".open");
    button.setAttribute("aria-expanded", String(wanted));
    if (!details.has(row)) {
      const under = document.createElement("tr"), cell = document.createElement("td");
      cell.colSpan = headings.length;
      cell.append(breakdown(JSON.parse(document.getElementById(`data-${row.dataset.case}`).textContent)));
      under.className = "details";
      under.append(cell);
      details.set(row, under);
      row.after(under);
    }
    details.get(row).hidden = !wanted;
  };
  body.addEventListener("click", (event) => {
    const button = event.target.closest(".open");
    if (button) open(button.closest("tr"), button.ariaExpanded !== "true");
  });

  const follow = () => {
    const row = rows.find((one) => `#${one.id}` === location.hash);
    if (!row) return;
    if (row.hidden) { find.value = ""; choices.forEach((choice) => { choice.value = ""; }); filter(); }
    open(row, true);
    row.scrollIntoView({ block: "center" });
  };
  addEventListener("hashchange", follow);
  new ResizeObserver(([box]) => table.parentElement.style.setProperty("--box", `${box.contentRect.width}px`)).observe(table.parentElement);
  filter();
  follow();
})();
