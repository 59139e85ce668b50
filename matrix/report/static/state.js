// What is chosen: filters, the open cell and the open case. All of it stands in the URL, after the #.

const FILTERS = ["server", "framework", "python", "section", "kind", "level", "q"];
const SETS = ["verdict", "change"];
const OPEN = ["cell", "case", "at", "bytes"];

/** Read the state from the URL. */
function readState() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  const state = {};
  for (const name of [...FILTERS, ...OPEN]) state[name] = parameters.get(name) ?? "";
  for (const name of SETS) state[name] = new Set((parameters.get(name) ?? "").split(",").filter(Boolean));
  return state;
}

/** Return the URL of a state: what is chosen now, with some changes. */
function urlOf(state, changes = {}) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...state, ...changes })) {
    const text = value instanceof Set ? [...value].join(",") : value;
    if (text) parameters.set(name, text);
  }
  // Slashes, colons and commas are allowed after the #, and ids read better with them.
  return `#${parameters.toString().replace(/%2F/g, "/").replace(/%3A/g, ":").replace(/%2C/g, ",")}`;
}

/** Change the state and show it. Typing into a field makes no step in the history; opening something does. */
function changeState(changes, { step = true } = {}) {
  const url = urlOf(readState(), changes);
  if (step) history.pushState(null, "", url);
  else history.replaceState(null, "", url);
  return showState();
}

function isFiltered(state) {
  return FILTERS.some((name) => state[name]) || SETS.some((name) => state[name].size);
}

/** Say whether a section is the chosen one, or stands below it: RFC 9112 section 6.3 below RFC 9112. */
function isSectionWithin(section, chosen) {
  if (chosen === "none") return section === null;
  return section !== null && section.startsWith(chosen) && /^(?:$|[ .,])/.test(section.slice(chosen.length));
}

function isCaseChosen(aCase, state, words) {
  return (
    (!state.kind || aCase.kind === state.kind) &&
    (!state.level || aCase.level === state.level) &&
    (!state.section || isSectionWithin(aCase.section, state.section)) &&
    words.every((word) => aCase.text.includes(word))
  );
}

function isCellChosen(cell, state) {
  return (
    (!state.server || cell.server === state.server) &&
    (!state.framework || cell.framework === state.framework || cell.version === state.framework) &&
    (!state.python || cell.python === state.python)
  );
}

/**
 * Apply the filters to every result, and count.
 *
 * Returns per cell the counts of each verdict; per case its worst verdict, how often it is bad and how many results it
 * has; the totals of each verdict and change before the filter by verdict and change; and the cases in the order of
 * the list, what needs looking at first.
 */
function select(model, state) {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const chosenCases = model.cases.filter((aCase) => isCaseChosen(aCase, state, words)).map((aCase) => aCase.place);
  const found = {
    cells: model.cells.map(() => null),
    worst: new Uint8Array(model.cases.length).fill(ABSENT),
    bad: new Uint32Array(model.cases.length),
    count: new Uint32Array(model.cases.length),
    change: new Array(model.cases.length).fill(null),
    verdictTotals: new Uint32Array(model.verdicts.length),
    changeTotals: Object.fromEntries(model.changes.map((change) => [change.name, 0])),
    caseless: [],
  };
  const isWanted = model.verdicts.map((verdict) => !state.verdict.size || state.verdict.has(verdict.name));
  for (const cell of model.cells) {
    if (isCellChosen(cell, state)) countCell(model, state, cell, chosenCases, isWanted, found);
  }
  found.order = orderCases(model, chosenCases, found);
  return found;
}

function countCell(model, state, cell, chosenCases, isWanted, found) {
  const now = model.now[cell.place];
  const before = model.before?.[cell.place];
  const counts = { verdicts: new Uint32Array(model.verdicts.length), matched: 0, changes: 0, regressed: 0, fixed: 0, hasCases: false };
  found.cells[cell.place] = counts;
  const isListed = !state.cell || state.cell === cell.cell;
  for (const place of chosenCases) {
    const verdict = now[place];
    const change = before ? classify(model, before[place], verdict) : null;
    if (verdict === ABSENT && !change) continue;
    counts.hasCases = true;
    if (isListed) {
      if (verdict !== ABSENT && (!state.change.size || state.change.has(change))) found.verdictTotals[verdict] += 1;
      if (change && (!state.verdict.size || (verdict !== ABSENT && isWanted[verdict]))) found.changeTotals[change] += 1;
    }
    if (state.change.size && !state.change.has(change)) continue;
    if (verdict === ABSENT ? state.verdict.size : !isWanted[verdict]) continue;
    counts.matched += 1;
    if (change) counts.changes += 1;
    if (change === "regressed" || change === "fixed") counts[change] += 1;
    if (verdict !== ABSENT) counts.verdicts[verdict] += 1;
    if (isListed) countCase(model, place, verdict, change, found);
  }
  if (!counts.hasCases) countCaseless(model, state, cell, counts, isWanted, isListed, found);
}

function countCase(model, place, verdict, change, found) {
  found.count[place] += 1;
  if (verdict < model.badCount) found.bad[place] += 1;
  if (verdict < found.worst[place]) found.worst[place] = verdict;
  if (change && rankOfChange(model, change) < rankOfChange(model, found.change[place])) found.change[place] = change;
}

/** A cell that could not be set up, or was skipped, has no case: its own verdict counts. */
function countCaseless(model, state, cell, counts, isWanted, isListed, found) {
  const hasAnyCase = model.now[cell.place].some((verdict) => verdict !== ABSENT);
  const isNarrowed = state.section || state.kind || state.level || state.q || state.change.size;
  if (cell.verdict === ABSENT || hasAnyCase || isNarrowed) return;
  if (isListed) found.verdictTotals[cell.verdict] += 1;
  if (!isWanted[cell.verdict]) return;
  counts.matched = 1;
  counts.verdicts[cell.verdict] = 1;
  if (isListed) found.caseless.push(cell);
}

/** Order the changes, regressions first; no change comes last. */
function rankOfChange(model, change) {
  return change === null ? model.changes.length : model.changes.findIndex((each) => each.name === change);
}

/** Order the cases: the worst first, then those that fail in most cells, then as they came. */
function orderCases(model, chosenCases, found) {
  const rank = (place) => (found.worst[place] >= model.badCount ? model.badCount : found.worst[place]);
  return chosenCases
    .filter((place) => found.count[place])
    .sort(
      (a, b) =>
        rankOfChange(model, found.change[a]) - rankOfChange(model, found.change[b]) ||
        rank(a) - rank(b) || found.bad[b] - found.bad[a] || found.worst[a] - found.worst[b] || a - b,
    );
}
