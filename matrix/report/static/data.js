// What the page knows: the index, unpacked at the start, and chunks of details, unpacked when a case opens.
// Everything in it may come from a server under test, so no text of it is ever taken for HTML: see element().

const ABSENT = 255;

/** Unpack base64 of gzip of JSON. */
async function unpack(base64) {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser cannot unpack the results (no DecompressionStream): open the page in a newer one");
  }
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return JSON.parse(await gunzip(new Blob([bytes])));
}

/** Return the text of compressed bytes. */
function gunzip(blob) {
  return new Response(blob.stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

/** Make the index usable: cells and cases as objects, verdicts as numbers (their place, the worst first). */
function makeModel(index) {
  const model = { ...index, badCount: index.verdicts.filter((verdict) => verdict.bad).length };
  model.cells = index.cells.map((record, place) => makeCell(model, record, place));
  model.cases = index.cases.map((fields, place) => makeCase(fields, place));
  model.now = index.results.map(readVerdicts);
  model.before = null;
  model.chunks = new Map();
  return model;
}

function makeCell(model, record, place) {
  const [server, version, python] = record.cell.split("/");
  const dash = version.lastIndexOf("-");
  const verdict = record.verdict ? model.verdicts.findIndex((each) => each.name === record.verdict) : ABSENT;
  return {
    ...record, place, server, version, verdict, beforeVerdict: ABSENT,
    python: python.slice(2), framework: version.slice(0, dash), number: version.slice(dash + 1),
  };
}

function makeCase([kind, id, rule = "", level = null, section = null, source = null, chunk = null], place) {
  const key = `${kind}:${id}`;
  return { place, key, kind, id, rule, level, section, source, chunk, text: `${id} ${rule} ${section ?? ""}`.toLowerCase() };
}

/** Turn the characters of one cell's verdicts into numbers. */
function readVerdicts(text) {
  return Uint8Array.from(text, (character) => (character === "." ? ABSENT : character.charCodeAt(0) - 48));
}

function nameOf(model, verdict) {
  return verdict === ABSENT ? "none" : model.verdicts[verdict].name;
}

function titleOf(model, name) {
  return model.titles[name] ?? name;
}

function titleOfVersion(model, cell) {
  return `${titleOf(model, cell.framework)} ${cell.number}`;
}

/** Return what is recorded of one case in one cell; an empty object when there is nothing. */
async function loadDetail(model, aCase, cell) {
  if (aCase.chunk === null) return {};
  if (!model.chunks.has(aCase.chunk)) model.chunks.set(aCase.chunk, loadChunk(aCase.chunk));
  const details = await model.chunks.get(aCase.chunk);
  return details.get(`${aCase.place} ${cell.place}`) ?? {};
}

async function loadChunk(number) {
  if (document.readyState === "loading") {
    await new Promise((resolve) => document.addEventListener("DOMContentLoaded", resolve, { once: true }));
  }
  const details = await unpack(document.getElementById(`chunk-${number}`).textContent);
  return new Map(details.map((detail) => [`${detail.case} ${detail.cell}`, detail]));
}

// An earlier run

/**
 * Lay an earlier run beside this one. What only that one has is added to cells and cases.
 * The baseline has its own lists: cells as [id, verdict], cases as [kind, id], and verdicts as texts.
 */
function setBaseline(model, baseline) {
  removeBaseline(model);
  model.baselineRun = baseline.run;
  const cases = new Map(model.cases.map((aCase) => [aCase.key, aCase.place]));
  const places = baseline.cases.map((fields) => {
    const added = makeCase(fields, model.cases.length);
    if (!cases.has(added.key)) {
      cases.set(added.key, added.place);
      model.cases.push(added);
    }
    return cases.get(added.key);
  });
  const cells = new Map(model.cells.map((cell) => [cell.cell, cell]));
  const rows = new Map();
  baseline.cells.forEach(([id, verdict], row) => {
    if (!cells.has(id)) {
      cells.set(id, makeCell(model, { cell: id }, model.cells.length));
      model.cells.push(cells.get(id));
    }
    cells.get(id).beforeVerdict = verdict ? model.verdicts.findIndex((each) => each.name === verdict) : ABSENT;
    rows.set(cells.get(id).place, readVerdicts(baseline.results[row]));
  });
  model.now = model.cells.map((cell) => widen(model.now[cell.place], model.cases.length));
  model.before = model.cells.map((cell) => {
    const verdicts = widen(undefined, model.cases.length);
    rows.get(cell.place)?.forEach((verdict, column) => { verdicts[places[column]] = verdict; });
    return verdicts;
  });
}

function removeBaseline(model) {
  model.baselineRun = null;
  model.before = null;
  model.cells.length = model.results.length;
  for (const cell of model.cells) cell.beforeVerdict = ABSENT;
}

function widen(verdicts, length) {
  const wide = new Uint8Array(length).fill(ABSENT);
  if (verdicts) wide.set(verdicts.subarray(0, length));
  return wide;
}

/** Say what became of a verdict, as matrix/diff.py does; null when nothing did. */
function classify(model, before, after) {
  const skip = model.verdicts.length - 1;
  const was = before === skip ? ABSENT : before;
  const is = after === skip ? ABSENT : after;
  if (was === is) return null;
  if (was === ABSENT) return "new";
  if (is === ABSENT) return "gone";
  if (was < model.badCount === is < model.badCount) return "changed";
  return is < model.badCount ? "regressed" : "fixed";
}

/** Read a file of results, as a run writes it, and return it as a baseline. */
async function readResultsFile(model, file) {
  const text = file.name.endsWith(".gz") ? await gunzip(file) : await file.text();
  const records = text.slice(0, text.lastIndexOf("\n")).split("\n").map((line) => JSON.parse(line));
  const run = records[0];
  if (run?.record !== "run" || run.format !== 1) throw new Error("it does not start with a run record of format 1");
  const cells = new Map();
  const cases = new Map();
  const found = [];
  for (const record of records) {
    if (record.record !== "cell" && record.record !== "case") continue;
    if (!cells.has(record.cell)) cells.set(record.cell, [record.cell, null]);
    if (record.record === "cell") cells.get(record.cell)[1] = record.verdict;
    else {
      const key = `${record.kind}:${record.id}`;
      if (!cases.has(key)) cases.set(key, [record.kind, record.id, record.rule, record.level, record.section]);
      found.push([record.cell, key, record.verdict]);
    }
  }
  return { run, cells: [...cells.values()], cases: [...cases.values()], results: layOut(model, cells, cases, found) };
}

function layOut(model, cells, cases, found) {
  const columns = new Map([...cases.keys()].map((key, column) => [key, column]));
  const rows = new Map([...cells.keys()].map((cell) => [cell, new Array(cases.size).fill(".")]));
  for (const [cell, key, verdict] of found) {
    rows.get(cell)[columns.get(key)] = String(model.verdicts.findIndex((each) => each.name === verdict));
  }
  return [...rows.values()].map((row) => row.join(""));
}
