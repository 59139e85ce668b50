// The open case: what the rule is, what was sent and came back, and how to see it again. And the open cell.

/** Show the open case, in the cell that is chosen, or in the one where it fares worst of those that pass the filters. */
async function showCase(model, state, found) {
  const panel = byId("case");
  const aCase = model.cases.find((each) => each.key === state.case);
  document.body.classList.toggle("case-open", Boolean(aCase));
  panel.hidden = !aCase;
  if (!aCase) return;
  const cell = chooseCell(model, state, aCase, found);
  const verdict = cell ? model.now[cell.place][aCase.place] : ABSENT;
  let detail = {};
  let problem = null;
  try {
    if (cell) detail = await loadDetail(model, aCase, cell);
  } catch (error) {
    problem = element("p", { class: "notice" }, `The details could not be unpacked: ${error.message}`);
  }
  const now = readState();
  if (now.case !== state.case || now.at !== state.at || now.cell !== state.cell) return; // another was opened meanwhile
  byId("case-body").replaceChildren(
    ...describeCase(model, aCase, verdict), problem ?? "",
    ...(cell ? describeResult(model, state, cell, aCase, verdict, detail) : []),
    ...describeCells(model, state, aCase, cell),
  );
}

function chooseCell(model, state, aCase, found) {
  const wanted = model.cells.find((cell) => cell.cell === (state.at || state.cell));
  const verdictIn = (cell) => model.now[cell.place][aCase.place];
  const changeIn = (cell) => (model.before ? classify(model, model.before[cell.place][aCase.place], verdictIn(cell)) : null);
  const having = model.cells.filter((cell) => verdictIn(cell) !== ABSENT || changeIn(cell));
  if (having.includes(wanted)) return wanted;
  const passing = having.filter((cell) => found.cells[cell.place] &&
    (!state.verdict.size || state.verdict.has(nameOf(model, verdictIn(cell)))) &&
    (!state.change.size || state.change.has(changeIn(cell))));
  return passing.reduce((worst, cell) => (worst && verdictIn(worst) <= verdictIn(cell) ? worst : cell), null) ?? having[0] ?? null;
}

function describeCase(model, aCase, verdict) {
  const facts = [aCase.kind, aCase.level, aCase.section].filter(Boolean).map((fact) => element("li", {}, fact));
  const number = /^RFC (\d+)(?: section (\d+(?:\.\d+)*))?/.exec(aCase.section ?? "");
  if (number) {
    const url = `https://www.rfc-editor.org/rfc/rfc${number[1]}${number[2] ? `#section-${number[2]}` : ""}`;
    facts[facts.length - 1] = element("li", {}, element("a", { href: url, rel: "noreferrer noopener", target: "_blank" }, aCase.section));
  }
  return [
    element("h2", { tabindex: "-1", id: "case-title" }, pill(nameOf(model, verdict)), " ", element("code", {}, aCase.id)),
    element("p", { class: "rule" }, aCase.rule),
    element("ul", { class: "facts" }, ...facts, aCase.source ? element("li", {}, "why: ", link(aCase.source)) : ""),
  ];
}

/** A small tile for each cell that has the case, server by server: who else fails it. */
function describeCells(model, state, aCase, chosen) {
  const has = (cell) => model.now[cell.place][aCase.place] !== ABSENT;
  const groups = groupBy(model.cells.filter(has), (cell) => cell.server);
  if ([...groups.values()].reduce((sum, cells) => sum + cells.length, 0) < 2) return [];
  const rows = [...model.servers.keys()].filter((server) => groups.has(server)).map((server) => element(
    "div", { class: "others" },
    element("span", { class: "server" }, titleOf(model, server)),
    element("span", { class: "dots" }, ...groups.get(server).map((cell) => {
      const verdict = nameOf(model, model.now[cell.place][aCase.place]);
      const label = `${verdict}: ${titleOf(model, cell.server)}, ${titleOfVersion(model, cell)}, Python ${cell.python}`;
      return element("a", {
        class: `dot v-${verdict}`, href: urlOf(state, { at: cell.cell, cell: state.cell && cell.cell }), title: label, "aria-label": label,
        "aria-current": cell === chosen ? "true" : null,
      }, GLYPHS[verdict]);
    })),
  ));
  return [element("section", { class: "where" }, element("h4", {}, "In every cell"), ...rows)];
}

function describeResult(model, state, cell, aCase, verdict, detail) {
  const before = model.before?.[cell.place][aCase.place];
  const change = model.before ? classify(model, before, verdict) : null;
  return [
    element("h3", {}, `${titleOf(model, cell.server)}, ${titleOfVersion(model, cell)}, Python ${cell.python}`),
    change ? element("p", { class: "notice" }, element("span", { class: `change c-${change}` }, change),
      ` ${nameOf(model, before)} in the earlier run, ${nameOf(model, verdict)} now`) : "",
    detail.blame ? element("p", { class: "blame" }, element("strong", {}, "Blame: "), describeBlame(model, detail.blame)) : "",
    detail.deviation ? element("p", { class: "notice" }, element("strong", {}, "Known deviation: "), detail.deviation.reason, " ",
      link(detail.deviation.link)) : "",
    detail.reproduce ? commandBox(detail.reproduce) : "",
    ...describeOutcome(detail),
    ...describeExchange(model, state, verdict, detail),
    detail.log ? element("details", {}, element("summary", {}, "What the server logged"), element("pre", { class: "log" }, detail.log)) : "",
    detail.seconds !== undefined ? element("p", { class: "small" }, `took ${formatSeconds(detail.seconds)}`) : "",
  ].filter((child) => child !== "");
}

function describeBlame(model, blame) {
  const list = (servers) => joinWords(servers.map((server) => titleOf(model, server)));
  const passing = blame.passing?.length ? `; ${list(blame.passing)} ${blame.passing.length === 1 ? "passes" : "pass"} it` : "";
  const failing = blame.failing?.length > 1 ? `; ${list(blame.failing)} fail it` : "";
  const words = { "every server": "every server fails it, so suspect the framework or the case", "app": "the app itself: it fails in process, with no server" };
  return words[blame.on] ?? `${blame.on}${failing}${passing}`;
}

function joinWords(words) {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words[words.length - 1]}`;
}

function describeOutcome(detail) {
  const expected = detail.expected ?? [];
  const boxes = [];
  if (expected.length) {
    const items = expected.map((text) => element("li", {}, text));
    boxes.push(element("section", { class: "expected" }, element("h4", {}, expected.length > 1 ? "Expected any of" : "Expected"), element("ul", {}, ...items)));
  }
  if (detail.got) boxes.push(element("section", { class: "got" }, element("h4", {}, "Got"), element("p", {}, detail.got)));
  const found = boxes.length ? [element("div", { class: "outcome" }, ...boxes)] : [];
  if (detail.explanation && detail.explanation !== detail.got) found.push(element("pre", { class: "explanation" }, detail.explanation));
  return found;
}

// Bytes on a timeline

const SPOKEN = {
  "sent": "client sent", "received": "server sent", "end of stream": "server closed the connection",
  "reset by the server": "server reset the connection", "half-closed": "client closed its writing side",
  "reset": "client reset the connection", "reconnected": "client opened a new connection", "note": "note",
};

/** How long nothing has to happen until the timeline shows the pause. */
const PAUSE_SECONDS = 0.05;

function describeExchange(model, state, verdict, detail) {
  const exchange = detail.exchange;
  if (!exchange) {
    const why = model.exchanges ? "No bytes were recorded." : "The bytes of passing cases were left out of this page, to keep it small.";
    return verdict === ABSENT ? [] : [element("p", { class: "small" }, why, detail.reproduce ? " The command above shows them." : "")];
  }
  const modes = ["text", "hex"].map((mode) => element("button", {
    type: "button", "aria-pressed": String((state.bytes || "text") === mode),
    "data-mode": mode, onclick: () => chooseMode(mode),
  }, mode === "text" ? "Text" : "Hex"));
  const head = element("div", { class: "wire-head" },
    element("h4", {}, exchange.address ? `On the wire, to ${exchange.address}` : "On the wire"),
    element("div", { class: "modes", role: "group", "aria-label": "How bytes are shown" }, ...modes));
  return [head, element("ol", { class: "timeline" }, ...exchange.events.flatMap((event, place) => [
    describePause(exchange.events[place - 1], event), describeEvent(event, state.bytes === "hex"),
  ]).filter(Boolean))];
}

async function chooseMode(mode) {
  await changeState({ bytes: mode === "text" ? "" : mode }, { step: false });
  byId("case-body").querySelector(`[data-mode="${mode}"]`)?.focus();
}

function describePause(previous, event) {
  const seconds = previous ? event.at - previous.at : 0;
  return seconds >= PAUSE_SECONDS ? element("li", { class: "pause" }, `${formatSeconds(seconds)} later`) : null;
}

function describeEvent(event, hex) {
  const { data = "", tail = "", omitted = 0, pieces = 1, kind } = event;
  const size = data.length + omitted + tail.length;
  const amount = size ? ` ${formatCount(size, "byte")}${pieces > 1 ? ` in ${pieces.toLocaleString("en")} pieces` : ""}` : "";
  const side = { "sent": "sent", "half-closed": "sent", "reset": "sent", "reconnected": "sent", "note": "note" }[kind] ?? "received";
  const dump = hex ? showHex : showText;
  return element("li", { class: side },
    element("div", { class: "when" }, `${event.at.toFixed(3)} s`),
    element("div", { class: "what" }, `${SPOKEN[kind]}${amount}`, event.text ? `: ${event.text}` : ""),
    size ? element("div", { class: "bytes" },
      dump(data, 0),
      omitted ? element("div", { class: "omitted" }, `\u2026 ${formatCount(omitted, "byte")} left out here \u2026`) : "",
      tail ? dump(tail, size - tail.length) : "") : null);
}

/** Bytes as text, one line of the message in a line; what has no shape of its own is marked. */
function showText(data) {
  const shown = element("pre", {});
  for (const piece of data.match(/[\x20-\x7e]+|\r\n|\r|\n|[^\x20-\x7e\r\n]+/g) ?? []) {
    if (/^[\x20-\x7e]/.test(piece)) shown.append(piece);
    else if (/^[\r\n]/.test(piece)) {
      shown.append(element("span", { class: "eol" }, piece.replace("\r", "\\r").replace("\n", "\\n")), piece.endsWith("\n") ? "\n" : "");
    } else shown.append(element("span", { class: "raw" }, [...piece].map(escapeByte).join("")));
  }
  return shown;
}

function escapeByte(character) {
  return character === "\t" ? "\\t" : `\\x${hexOf(character)}`;
}

function hexOf(character) {
  return character.charCodeAt(0).toString(16).padStart(2, "0");
}

function showHex(data, start) {
  const width = innerWidth < 640 ? 8 : 16;
  const lines = [];
  for (let place = 0; place < data.length; place += width) {
    const row = [...data.slice(place, place + width)];
    const bytes = row.map(hexOf).join(" ").padEnd(width * 3);
    const text = row.map((character) => (/[\x20-\x7e]/.test(character) ? character : ".")).join("");
    lines.push(`${(start + place).toString(16).padStart(6, "0")}  ${bytes} ${text}`);
  }
  return element("pre", { class: "hex" }, lines.join("\n"));
}

// The open cell

function showCell(model, state) {
  const cell = model.cells.find((each) => each.cell === state.cell);
  byId("cell").hidden = !cell;
  if (!cell) return;
  const verdict = nameOf(model, cell.verdict);
  byId("cell-body").replaceChildren(
    element("h2", { tabindex: "-1", id: "cell-title" }, pill(verdict), " ",
      `${titleOf(model, cell.server)}, ${titleOfVersion(model, cell)}, Python ${cell.python}`),
    cell.explanation ? element("pre", { class: "explanation" }, cell.explanation) : "",
    cell.reproduce ? commandBox(cell.reproduce) : element("p", { class: "notice" }, describeNothing(model, cell, {})),
    describeProvenance(cell),
  );
}

function describeProvenance(cell) {
  const { packages = [], ...rest } = cell.provenance ?? {};
  const facts = {
    "id": cell.cell, "started as": cell.transport, "at": cell.started && formatTime(cell.started),
    "took": cell.seconds !== undefined ? formatSeconds(cell.seconds) : "", "server version": rest.server_version, "server commit": rest.server_commit,
    "server command": rest.server_command, "interpreter": rest.interpreter, "platform": rest.platform, "image": rest.image,
    "digest": rest.digest, "URL": rest.url, "packages": packages.join("  "), "result of run": cell.reused_from,
  };
  const rows = Object.entries(facts).filter(([, value]) => value)
    .flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
  return element("details", {}, element("summary", {}, "What it was made of"), element("dl", { class: "provenance" }, ...rows));
}
