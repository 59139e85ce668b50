// The one place that makes elements. Text is set as text: markup in it stays visible characters.

const GLYPHS = {
  "crash": "!", "setup-error": "\u25b2", "app-error": "A", "fail": "\u2715", "timeout": "\u25d4", "stale": "\u21bb",
  "known": "\u2248", "pass": "\u2713", "skip": "\u2013", "none": "\u00b7",
};

/** Make an element. Properties that start with "on" are listeners; the others are attributes. */
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

function byId(id) {
  return document.getElementById(id);
}

/** A verdict as glyph and name: never by its colour alone. */
function pill(verdict) {
  return element("span", { class: `pill v-${verdict}` }, glyph(verdict), element("span", { class: "name" }, verdict));
}

function glyph(verdict) {
  return element("span", { class: "glyph", "aria-hidden": "true" }, GLYPHS[verdict]);
}

/** A link only where a URL is one of the web; anything else (javascript:) stays text. */
function link(url) {
  if (!/^https?:\/\/[^\s]+$/i.test(url)) return document.createTextNode(url);
  return element("a", { href: url, rel: "noreferrer noopener", target: "_blank" }, url.replace(/^https?:\/\//, ""));
}

/** A command in a box, with a button that copies it. */
function commandBox(command) {
  const button = element("button", { type: "button", class: "copy", onclick: () => copyText(command, button) }, "Copy");
  return element("div", { class: "command" }, element("code", {}, command), button);
}

async function copyText(text, button) {
  const copied = await putOnClipboard(text);
  button.textContent = copied ? "Copied" : "Press Ctrl+C";
  announce(copied ? "Copied" : "Could not copy");
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

async function putOnClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // A page opened from a disk may have no clipboard: the old way still works there.
    const area = element("textarea", { class: "visually-hidden" });
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

/** Tell those who listen to the page instead of looking at it. */
function announce(text) {
  byId("live").textContent = text;
}

function formatCount(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

function formatSeconds(seconds) {
  if (seconds < 10) return `${seconds.toFixed(seconds < 1 ? 3 : 2)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

function formatTime(time) {
  return time.replace("T", " ").replace(/:\d\d(\.\d+)?Z$/, " UTC");
}
