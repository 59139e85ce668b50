// The grid: a row for each version of a framework, a column for each server, a tile for each Python.

/** With at most so many tiles in a row, each says in words what it stands for. */
const WORDY_TILES = 3;

/** How much of a cell has to be bad for its tile to be full of colour, in hundredths. */
const FULL_COLOUR_PERCENT = 3;

/** Make the grid, the worst row and the worst column first; showGrid() fills the tiles. */
function makeGrid(model) {
  const worst = (cells) => rankCells(model, cells);
  model.servers = sortGroups(groupBy(model.cells, (cell) => cell.server), worst);
  model.versions = sortGroups(groupBy(model.cells, (cell) => cell.version), worst);
  model.tiles = model.cells.map((cell) => element("a", { class: "tile", "data-cell": cell.cell }));
  const head = element("tr", {}, element("td", {}), ...[...model.servers.keys()].map((server) => makeServerHead(model, server)));
  const rows = [...model.versions.values()].map((cells) => makeRow(model, cells));
  const widest = Math.max(...[...groupBy(model.cells, (cell) => `${cell.server} ${cell.version}`).values()].map((cells) => cells.length));
  model.isWide = model.servers.size * widest > WORDY_TILES;
  byId("grid").replaceChildren(
    element("caption", { class: "visually-hidden" }, "Cells by version of the framework and by server"),
    element("thead", {}, head), element("tbody", {}, ...rows),
  );
}

function makeServerHead(model, server) {
  const button = element("button", { type: "button", "data-server": server }, titleOf(model, server));
  button.addEventListener("click", () => toggleFilter("server", server));
  return element("th", { scope: "col" }, button);
}

function makeRow(model, cells) {
  const button = element("button", { type: "button", "data-framework": cells[0].version }, titleOfVersion(model, cells[0]));
  button.addEventListener("click", () => toggleFilter("framework", cells[0].version));
  const columns = [...model.servers.keys()].map((server) => {
    const tiles = cells.filter((cell) => cell.server === server).sort(comparePythons).map((cell) => model.tiles[cell.place]);
    return element("td", {}, element("div", { class: "tiles" }, ...tiles));
  });
  return element("tr", {}, element("th", { scope: "row" }, button), ...columns);
}

function toggleFilter(name, value) {
  changeState({ [name]: readState()[name] === value ? "" : value });
}

function groupBy(items, keyOf) {
  const groups = new Map();
  for (const item of items) {
    if (!groups.has(keyOf(item))) groups.set(keyOf(item), []);
    groups.get(keyOf(item)).push(item);
  }
  return groups;
}

function sortGroups(groups, rankOf) {
  const ranks = new Map([...groups].map(([key, items]) => [key, rankOf(items)]));
  return new Map([...groups].sort(([a], [b]) => ranks.get(a).worst - ranks.get(b).worst || ranks.get(b).bad - ranks.get(a).bad));
}

/** How badly some cells need looking at: whether any is bad, and how many results are. */
function rankCells(model, cells) {
  let bad = 0;
  let worst = 1;
  for (const cell of cells) {
    for (const verdict of model.now[cell.place]) if (verdict < model.badCount) bad += 1;
    if (cell.verdict < model.badCount || bad) worst = 0;
  }
  return { worst, bad };
}

function comparePythons(a, b) {
  return a.python.localeCompare(b.python, "en", { numeric: true });
}

/** Show in each tile the worst that the filters leave of its cell. */
function showGrid(model, state, found) {
  for (const cell of model.cells) showTile(model, state, cell, found.cells[cell.place]);
  for (const name of ["server", "framework"]) {
    for (const button of byId("grid").querySelectorAll(`[data-${name}]`)) {
      button.setAttribute("aria-pressed", button.dataset[name] === state[name]);
    }
  }
}

function showTile(model, state, cell, counts) {
  const tile = model.tiles[cell.place];
  const { verdict, number, words, isMild } = describeTile(model, cell, counts);
  tile.className = `tile v-${verdict}`;
  tile.classList.toggle("mild", isMild);
  tile.classList.toggle("chosen", state.cell === cell.cell);
  tile.classList.toggle("out", !counts?.matched);
  tile.href = urlOf(state, { cell: cell.cell, case: "", at: "" });
  const amount = model.isWide ? (number || "").toLocaleString("en") : words;
  const mark = `${GLYPHS[verdict]}${amount && "\u2009"}${amount}`;
  tile.replaceChildren(element("span", { class: "python" }, cell.python), element("span", { class: "mark" }, mark), describeDelta(counts));
  const where = `${titleOf(model, cell.server)}, ${titleOfVersion(model, cell)}, Python ${cell.python}`;
  tile.setAttribute("aria-label", `${where}: ${words}`);
  tile.title = `${where}\n${words}`;
}

/** In a comparison: how many results got worse, or else better. */
function describeDelta(counts) {
  if (counts?.regressed) return element("span", { class: "delta" }, `\u2193${counts.regressed}`);
  return counts?.fixed ? element("span", { class: "delta" }, `\u2191${counts.fixed}`) : "";
}

/** Return the verdict to show, how many results are like that, the same in words, and whether it is a small part. */
function describeTile(model, cell, counts) {
  if (!counts?.matched) return { verdict: "none", number: 0, words: describeNothing(model, cell, counts), isMild: false };
  const worst = counts.verdicts.findIndex((count) => count > 0);
  if (worst < 0) return { verdict: "none", number: counts.changes, words: formatCount(counts.changes, "result gone", "results gone"), isMild: false };
  const bad = counts.verdicts.slice(0, model.badCount).reduce((sum, count) => sum + count, 0);
  const name = nameOf(model, worst);
  const words = [...["regressed", "fixed"].flatMap((change) => (counts[change] ? [`${counts[change]} ${change}`] : [])), ...[...counts.verdicts].flatMap((count, verdict) => (count ? [`${count.toLocaleString("en")} ${nameOf(model, verdict)}`] : []))];
  const isMild = name === "fail" && bad * 100 < counts.matched * FULL_COLOUR_PERCENT;
  return { verdict: name, number: bad || (name === "known" ? counts.verdicts[worst] : 0), words: words.join(", "), isMild };
}

function describeNothing(model, cell, counts) {
  if (cell.verdict !== ABSENT) return counts ? `${nameOf(model, cell.verdict)}; nothing here passes the filters` : "not chosen";
  return cell.place < model.results.length ? "did not end" : "only in the earlier run";
}
