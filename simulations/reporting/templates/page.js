"use strict";

function sortValue(row, column) {
  const cell = row.cells[column];
  const given = cell.dataset.value;
  if (given === undefined) return cell.textContent.trim().toLowerCase();
  return given === "" ? null : Number(given);
}

function compare(one, other, direction) {
  // What is not known stays at the bottom in either direction.
  if (one === null || other === null) return (one === null) - (other === null);
  const order = typeof one === "number" ? one - other : one.localeCompare(other);
  return direction * order;
}

function sortBy(heading) {
  const column = heading.cellIndex;
  const body = heading.closest("table").tBodies[0];
  const direction = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of heading.parentElement.cells) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  const rows = Array.from(body.rows, (row) => ({ row, value: sortValue(row, column) }));
  rows.sort((one, other) => compare(one.value, other.value, direction));
  body.append(...rows.map((entry) => entry.row));
}

for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => sortBy(button.closest("th")));
}

async function copyCommand(button) {
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    // Browsers may forbid it to a page from a file; then one keystroke is left to do.
    window.getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
}

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", () => copyCommand(button));
}

window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
