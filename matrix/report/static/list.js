// The list of cases. Only the rows on the screen exist, however long the list is; the window scrolls it.

const OVERSCAN = 8;

/** So many rows are always there, so that the Tab key finds the list while it is still below the screen. */
const ALWAYS = 10;

const list = { order: [], rows: new Map(), height: 44, found: null, state: null };

function showList(model, state, found) {
  Object.assign(list, { model, state, found, order: found.order });
  for (const row of list.rows.values()) row.remove();
  list.rows.clear();
  showCaseless(model, state, found.caseless);
  const bad = found.order.filter((place) => found.bad[place]).length;
  byId("list-count").textContent = found.order.length
    ? `${formatCount(found.order.length, "case")}${bad ? `, ${bad.toLocaleString("en")} not as expected` : ""}`
    : "no case passes the filters";
  layOutList();
}

/** Fit the list to the width of the window, which decides how high a row is. */
function layOutList() {
  const height = parseInt(getComputedStyle(byId("list")).getPropertyValue("--row"), 10);
  if (height !== list.height) {
    for (const row of list.rows.values()) row.remove();
    list.rows.clear();
  }
  list.height = height;
  byId("list").style.height = `${list.order.length * height}px`;
  showRows();
}

/** Make the rows that are on the screen, or nearly, and drop the others. */
function showRows() {
  const top = byId("list").getBoundingClientRect().top;
  const first = Math.max(0, Math.floor(-top / list.height) - OVERSCAN);
  const last = Math.min(list.order.length, Math.ceil((innerHeight - top) / list.height) + OVERSCAN);
  for (const [index, row] of list.rows) {
    if (index >= ALWAYS && (index < first || index >= last) && !row.contains(document.activeElement)) {
      row.remove();
      list.rows.delete(index);
    }
  }
  const wanted = [...range(0, Math.min(ALWAYS, list.order.length)), ...range(first, last)];
  for (const index of wanted) if (!list.rows.has(index)) addRow(index);
}

function range(first, last) {
  return Array.from({ length: Math.max(0, last - first) }, (_, place) => first + place);
}

function addRow(index) {
  const row = makeRowOfCase(index);
  list.rows.set(index, row);
  // In the order of the list, so that Tab and screen readers go through it as the eye does.
  const next = [...list.rows.keys()].filter((each) => each > index).sort((a, b) => a - b)[0];
  byId("list").insertBefore(row, next === undefined ? null : list.rows.get(next));
}

function makeRowOfCase(index) {
  const { model, state, found } = list;
  const aCase = model.cases[list.order[index]];
  const place = aCase.place;
  const verdict = nameOf(model, found.worst[place]);
  const count = found.count[place];
  const share = count > 1 && found.bad[place] ? `${found.bad[place]} of ${count} cells` : "";
  const anchor = element(
    "a", { href: urlOf(state, { case: aCase.key, at: "" }), "aria-current": state.case === aCase.key ? "true" : null },
    pill(verdict),
    makeId(aCase),
    element("span", { class: "rule" }, aCase.rule),
    element("span", { class: "section" }, shortSection(aCase)),
    element("span", { class: "share" }, share),
    found.change[place] ? element("span", { class: `change c-${found.change[place]}` }, found.change[place]) : null,
  );
  const row = element("li", { "aria-setsize": list.order.length, "aria-posinset": index + 1 }, anchor);
  row.style.transform = `translateY(${index * list.height}px)`;
  return row;
}

/** The id without the module of a test. What tells two tests of one name apart stays when the name is cut. */
function makeId(aCase) {
  const [, name, rest] = /^(?:[^:[]+\.py::)?(.*?)(:split|\[.*\])?$/s.exec(aCase.id);
  return element("span", { class: "id", title: aCase.id }, element("span", { class: "start" }, name), rest ? element("span", { class: "rest" }, rest) : "");
}

function shortSection(aCase) {
  return aCase.section ? aCase.section.replace(" section ", " \u00a7") : aCase.kind;
}

/** Move to another row of the list, and open it when a case is open. */
function moveInList(step) {
  if (!list.order.length) return;
  const state = readState();
  const focused = [...list.rows].find(([, row]) => row.contains(document.activeElement))?.[0];
  const open = list.order.findIndex((place) => list.model.cases[place].key === state.case);
  const from = focused ?? (open >= 0 ? open : -1);
  const index = Math.min(Math.max(from + step, 0), list.order.length - 1);
  if (state.case) changeState({ case: list.model.cases[list.order[index]].key, at: "" }, { step: false });
  focusRow(index);
}

function focusRow(index) {
  const top = byId("list").getBoundingClientRect().top + scrollY + index * list.height;
  const bar = byId("filters").getBoundingClientRect().height;
  if (top < scrollY + bar || top + list.height > scrollY + innerHeight) scrollTo(0, top - innerHeight / 3);
  showRows();
  list.rows.get(index)?.querySelector("a").focus({ preventScroll: true });
}

function focusCaseInList(key) {
  const index = list.order.findIndex((place) => list.model.cases[place].key === key);
  if (index >= 0) focusRow(index);
}

/** Cells without any case: what could not be set up, or was skipped. */
function showCaseless(model, state, cells) {
  byId("caseless").hidden = !cells.length;
  byId("caseless-list").replaceChildren(...cells.map((cell) => element(
    "li", {},
    element("a", { href: urlOf(state, { cell: cell.cell, case: "", at: "" }) }, pill(nameOf(model, cell.verdict)), " ", cell.cell),
    element("span", { class: "why" }, (cell.explanation ?? "").split("\n")[0]),
  )));
}
