"use strict";

const all = (selector, within = document) => [...within.querySelectorAll(selector)];

function button(text, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", act);
  return made;
}

/* Tables: each title becomes a button; numbers fall first, words rise first; what is missing stays last. */
function sort(table, title) {
  const place = title.cellIndex, numeric = title.classList.contains("number");
  const before = title.getAttribute("aria-sort");
  const rising = before ? before === "descending" : !numeric;
  const key = (row) => {
    const cell = row.cells[place];
    return numeric ? (cell.dataset.key ? Number(cell.dataset.key) : null) : cell.textContent || null;
  };
  const order = (a, b) => (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true })) * (rising ? 1 : -1);
  const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
  rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : order(a, b)));
  table.tBodies[0].append(...rows.map(([, row]) => row));
  for (const other of title.parentElement.cells) other.removeAttribute("aria-sort");
  title.setAttribute("aria-sort", rising ? "ascending" : "descending");
}

for (const table of all("table[data-sort]")) {
  if (table.tBodies[0].rows.length < 2) continue;
  for (const title of table.tHead.rows[0].cells) {
    if (!title.textContent) continue;
    const made = button(title.textContent, () => sort(table, title));
    title.replaceChildren(made);
  }
}

/* Matrices: other orders of the classes, and arrow keys from cell to cell, so that they are one stop of the tab key. */
function reorder(table, order) {
  for (const row of table.rows) {
    const cells = [...row.cells].slice(1).sort((a, b) => a.dataset.place - b.dataset.place);
    row.append(...order.map((place) => cells[place]));
  }
  const rows = [...table.tBodies[0].rows].sort((a, b) => a.dataset.place - b.dataset.place);
  table.tBodies[0].append(...order.map((place) => rows[place]));
}

function choices(table) {
  const orders = Object.entries(JSON.parse(table.dataset.matrix));
  if (!orders.length) return;
  const bar = document.createElement("div");
  bar.className = "choices";
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", "Order of the classes");
  const given = all("tbody tr", table).map((_, place) => place);
  const buttons = [["as given", given], ...orders].map(([name, order], first) => {
    const made = button(name, () => {
      reorder(table, order);
      for (const other of buttons) other.setAttribute("aria-pressed", other === made);
    });
    made.setAttribute("aria-pressed", first === 0);
    return made;
  });
  bar.append("Order", ...buttons);
  table.parentElement.before(bar);
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function move(table, event) {
  const step = STEPS[event.key], cell = event.target.closest("td");
  if (!step || !cell) return;
  event.preventDefault();
  let [row, column] = [cell.parentElement.rowIndex, cell.cellIndex];
  for (;;) {
    row += step[0];
    column += step[1];
    const next = table.rows[row]?.cells[column];
    if (!next || column === 0) return;
    const link = next.querySelector("a");
    if (link) return link.focus();
  }
}

for (const table of all("table[data-matrix]")) {
  for (const row of table.rows) [...row.cells].slice(1).forEach((cell, place) => (cell.dataset.place = place));
  all("tbody tr", table).forEach((row, place) => (row.dataset.place = place));
  choices(table);
  const links = all("a", table);
  links.forEach((link, first) => (link.tabIndex = first ? -1 : 0));
  table.addEventListener("keydown", (event) => move(table, event));
  table.addEventListener("focusin", (event) => {
    if (event.target.matches("td a")) for (const link of links) link.tabIndex = link === event.target ? 0 : -1;
  });
}

/* Groups of pictures: one at a time, chosen by the link that leads to it; Escape goes back to the link. */
for (const panel of all("[data-groups]")) {
  const groups = [...panel.children];
  const links = all("a[href^='#']").filter((link) => groups.some((group) => `#${group.id}` === link.hash));
  const show = (chosen) => {
    for (const group of groups) group.hidden = group !== chosen;
    for (const link of links) {
      if (link.hash === `#${chosen.id}`) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  if (groups.length) show(groups[0]);
  for (const link of links) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const chosen = groups.find((group) => `#${group.id}` === link.hash);
      show(chosen);
      chosen.focus({ preventScroll: true });
      chosen.scrollIntoView({ block: "nearest" });
    });
  }
  panel.addEventListener("keydown", (event) => {
    if (event.key === "Escape") links.find((link) => link.hasAttribute("aria-current"))?.focus();
  });
  addEventListener("beforeprint", () => groups.forEach((group) => (group.hidden = false)));
}

/* Contents: the section that is being read. */
const entries = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
const seen = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    if (!isIntersecting) continue;
    for (const link of entries.values()) link.removeAttribute("aria-current");
    entries.get(target.id)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "-15% 0px -75% 0px" });
for (const section of all("main > section")) seen.observe(section);
