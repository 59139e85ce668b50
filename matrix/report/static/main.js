// Start, and what the keys and buttons do.

document.documentElement.classList.add("js");

let model = null;
let shownState = null;

/** Show what the URL says; ready when the open case is shown as well. */
function showState() {
  const began = performance.now();
  const state = readState();
  shownState = state;
  const found = select(model, state);
  showFilters(model, state, found);
  showGrid(model, state, found);
  showCell(model, state);
  showList(model, state, found);
  performance.measure("show", { start: began });
  return showCase(model, state, found);
}

// Filters

function makeFilters(model) {
  const servers = [...model.servers.keys()].map((server) => [server, titleOf(model, server)]);
  const pythons = [...new Set(model.cells.map((cell) => cell.python))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  fillSelect("server", servers);
  fillSelect("framework", frameworkOptions(model));
  fillSelect("python", pythons.map((python) => [python, python]));
  fillSelect("section", sectionOptions(model));
  fillSelect("kind", [...new Set(model.cases.map((aCase) => aCase.kind))].map((kind) => [kind, kind]));
  fillSelect("level", [...new Set(model.cases.map((aCase) => aCase.level))].filter(Boolean).map((level) => [level, level]));
  byId("legend").replaceChildren(...model.verdicts.map((verdict) => makeToggle("verdict", verdict, pill(verdict.name))));
}

function fillSelect(name, options) {
  const choices = options.map(([value, text]) => element("option", { value }, text));
  byId(`filter-${name}`).replaceChildren(element("option", { value: "" }, "all"), ...choices);
  byId(`filter-${name}`).closest("label").hidden = options.length < 2;
}

function frameworkOptions(model) {
  const byFramework = groupBy([...model.versions.values()].map((cells) => cells[0]), (cell) => cell.framework);
  return [...byFramework].flatMap(([framework, cells]) => [
    ...(cells.length > 1 ? [[framework, titleOf(model, framework)]] : []),
    ...cells.sort((a, b) => b.number.localeCompare(a.number, "en", { numeric: true }))
      .map((cell) => [cell.version, `${cells.length > 1 ? "\u2003" : ""}${titleOfVersion(model, cell)}`]),
  ]);
}

/** Every section, each document above its sections. */
function sectionOptions(model) {
  const sections = [...new Set(model.cases.map((aCase) => aCase.section))];
  const known = sections.filter((section) => section !== null).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const byDocument = groupBy(known, (section) => /^(?:RFC|PEP) \d+/.exec(section)?.[0] ?? section);
  const options = [...byDocument].flatMap(([name, group]) => [
    ...(group.length > 1 || group[0] !== name ? [[name, name]] : []),
    ...group.filter((section) => section !== name || group.length === 1).map((section) => [section, `${section === name ? "" : "\u2003"}${section}`]),
  ]);
  return known.length < sections.length && known.length ? [...options, ["none", "with no section"]] : options;
}

/** A button for a verdict or a change: pressed, only those that are pressed are shown. */
function makeToggle(name, { name: value, meaning }, label) {
  const button = element("button", { type: "button", class: "toggle", title: meaning, "data-value": value }, label, element("span", { class: "number" }));
  button.addEventListener("click", () => {
    const chosen = readState()[name];
    if (!chosen.delete(value)) chosen.add(value);
    changeState({ [name]: chosen });
  });
  return button;
}

function showFilters(model, state, found) {
  for (const name of FILTERS) {
    const field = byId(`filter-${name}`);
    if (document.activeElement !== field || name !== "q") field.value = state[name];
  }
  model.verdicts.forEach((verdict, place) => showToggle("legend", verdict.name, state.verdict, found.verdictTotals[place]));
  for (const change of model.changes) showToggle("changes", change.name, state.change, found.changeTotals[change.name]);
  byId("reset").hidden = !isFiltered(state);
  const count = FILTERS.filter((name) => state[name]).length;
  byId("filters-button").textContent = count ? `Filters (${count})` : "Filters";
  showBar(model, found);
}

function showToggle(group, value, chosen, number) {
  const button = byId(group).querySelector(`[data-value="${value}"]`);
  if (!button) return;
  button.querySelector(".number").textContent = number.toLocaleString("en");
  button.setAttribute("aria-pressed", String(chosen.has(value)));
  button.hidden = !number && !chosen.has(value);
}

/** The bar above the legend: how much of all is good. */
function showBar(model, found) {
  const total = found.verdictTotals.reduce((sum, count) => sum + count, 0);
  byId("bar").replaceChildren(...model.verdicts.flatMap((verdict, place) => {
    if (!found.verdictTotals[place]) return [];
    const part = element("span", { class: `v-${verdict.name}` });
    part.style.flexGrow = found.verdictTotals[place] / total;
    return [part];
  }));
}

function listenToFilters() {
  for (const name of FILTERS) {
    const field = byId(`filter-${name}`);
    field.addEventListener(name === "q" ? "input" : "change", () => changeState({ [name]: field.value }, { step: name !== "q" }));
  }
  byId("filter-form").addEventListener("submit", (event) => event.preventDefault());
  byId("reset").addEventListener("click", () => {
    byId("filter-q").value = "";
    changeState(Object.fromEntries([...FILTERS.map((name) => [name, ""]), ...SETS.map((name) => [name, new Set()])]));
  });
  byId("filters-button").addEventListener("click", () => {
    const open = byId("filters").classList.toggle("open");
    byId("filters-button").setAttribute("aria-expanded", String(open));
  });
}

// Comparing

function showBaseline(model) {
  const run = model.baselineRun;
  byId("compared").hidden = !run;
  if (!run) return;
  byId("compared-with").textContent = `Compared with run ${run.run} of ${formatTime(run.started)}`;
  byId("changes").replaceChildren(...model.changes.map((change) =>
    makeToggle("change", change, element("span", { class: `change c-${change.name}` }, change.name))));
}

function rebuild() {
  makeGrid(model);
  makeFilters(model);
  showBaseline(model);
  showState();
}

async function compareWithFile(file) {
  try {
    setBaseline(model, await readResultsFile(model, file));
    byId("compare-problem").textContent = "";
    rebuild();
    announce(byId("compared-with").textContent);
  } catch (error) {
    byId("compare-problem").textContent = `${file.name} is no file of results: ${error.message}`;
  }
}

function listenToCompare() {
  byId("compare-file").addEventListener("change", (event) => {
    if (event.target.files[0]) compareWithFile(event.target.files[0]);
  });
  byId("compare-end").addEventListener("click", () => {
    removeBaseline(model);
    history.replaceState(null, "", urlOf(readState(), { change: "" }));
    byId("compare-file").value = "";
    rebuild();
  });
}

// Opening and closing

function closeCase() {
  const { case: key } = readState();
  changeState({ case: "", at: "", bytes: "" });
  focusCaseInList(key);
}

function closeCell() {
  const { cell } = readState();
  changeState({ cell: "", case: "", at: "" });
  model.tiles[model.cells.findIndex((each) => each.cell === cell)]?.focus();
}

/** After a link of the page was followed, or a step back: show the state, and take the focus to what was opened. */
async function followUrl() {
  const before = shownState;
  await showState();
  const { cell, case: key, at } = shownState;
  if (key && key !== before.case) bringCaseIntoView();
  else if (key && at !== before.at) byId("case-body").querySelector(".dot[aria-current]")?.focus({ preventScroll: true });
  else if (cell && cell !== before.cell) {
    byId("cell").scrollIntoView({ block: "start" });
    byId("cell-title")?.focus({ preventScroll: true });
  }
}

function bringCaseIntoView() {
  const columns = byId("case").parentElement;
  if (columns.getBoundingClientRect().top > innerHeight / 2) columns.scrollIntoView({ block: "start" });
  byId("case-title")?.focus({ preventScroll: true });
}

const KEYS = {
  "/": () => { byId("filters").classList.add("open"); byId("filter-q").focus(); },
  "j": () => moveInList(1),
  "k": () => moveInList(-1),
  "c": () => document.querySelector("#case:not([hidden]) .copy, #cell:not([hidden]) .copy")?.click(),
  "?": () => byId("help").showModal(),
};

function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
    const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "Escape") leave(event.target, isTyping);
    else if (isTyping) return;
    else if (/^Arrow(Down|Up)$/.test(event.key) && event.target.closest("#list")) moveInList(event.key === "ArrowDown" ? 1 : -1);
    else if (KEYS[event.key] && byId("keys-on").checked) KEYS[event.key]();
    else return;
    event.preventDefault();
  });
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  byId("case-close").addEventListener("click", closeCase);
  byId("cell-close").addEventListener("click", closeCell);
}

/** Escape leaves a field, then the case, then the cell. */
function leave(target, isTyping) {
  if (isTyping) target.blur();
  else if (readState().case) closeCase();
  else if (readState().cell) closeCell();
}

function listenToWindow() {
  addEventListener("popstate", followUrl);
  let isScheduled = false;
  addEventListener("scroll", () => {
    if (isScheduled) return;
    isScheduled = true;
    requestAnimationFrame(() => { isScheduled = false; showRows(); });
  }, { passive: true });
  addEventListener("resize", layOutList);
}

async function start() {
  const index = await unpack(byId("index").textContent);
  model = makeModel(index);
  if (index.baseline) setBaseline(model, index.baseline);
  makeGrid(model);
  makeFilters(model);
  showBaseline(model);
  listenToFilters();
  listenToCompare();
  listenToKeys();
  listenToWindow();
  byId("loading").remove();
  byId("report").hidden = false;
  const isCaseShown = showState();
  performance.mark("report-shown");
  await isCaseShown;
  if (shownState.case) bringCaseIntoView();
}

start().catch((error) => { byId("loading").textContent = `The report cannot be shown: ${error.message}`; });
