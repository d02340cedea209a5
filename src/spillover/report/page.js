// The answer browser. Columns of indices come in, rows of text go out; every text is set through textContent.

const data = JSON.parse(document.getElementById("answer-data").textContent);
const { rows, pairs, verdicts } = data;
const TOTAL = rows.pair.length;
const OF_SAMPLE = data.total > TOTAL ? " in the sample" : "";
const PAGE = 50;
const PREVIEW = 240;

const form = document.getElementById("filters");
const list = document.getElementById("answers");
const field = (name) => form.elements[name];
const label = (name) => name.replaceAll("_", " ");
const count = (number) => number.toLocaleString("en-US");

// The first two states are those of a kept answer; the others are reasons why one is set aside.
const MISALIGNED = 0;
const isKept = (state) => state < 2;

let matches = [];
let page = 0;
let texts = null;

/** An element with a class, a text, and children. */
function element(tag, className, text, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== null && text !== undefined) node.textContent = text;
  node.append(...children);
  return node;
}

// ---- filters

function option(value, text) {
  const node = element("option", "", text);
  node.value = value;
  return node;
}

/** Fills a select with the given indices of a list of names, and keeps what was chosen if it is still there. */
function offer(name, indices, names, any) {
  const select = field(name);
  const chosen = select.value;
  select.replaceChildren(option("", any), ...indices.map((index) => option(String(index), label(names[index]))));
  select.value = [...select.options].some((item) => item.value === chosen) ? chosen : "";
}

/** The different values of a column among the rows of the chosen suite and group, in order. */
function present(column, suite, group) {
  const found = new Set();
  for (let row = 0; row < TOTAL; row++) {
    if ((suite < 0 || rows.suite[row] === suite) && (group < 0 || rows.group[row] === group)) found.add(column[row]);
  }
  return [...found].sort((a, b) => a - b);
}

/** Runs are those of the group, questions those of the suite. */
function offerWhatFits() {
  offer("run", present(rows.run, -1, chosen("group")), data.runs, "all runs");
  offer("question", present(rows.question, chosen("suite"), -1), data.questions, "all questions");
}

function offerStates() {
  const group = (title, kept) => {
    const node = element("optgroup");
    node.label = title;
    const indices = [...data.states.keys()].filter((index) => isKept(index) === kept);
    node.append(option(kept ? "kept" : "aside", `all ${title}`));
    node.append(...indices.map((index) => option(String(index), data.states[index])));
    return node;
  };
  field("state").replaceChildren(option("", "all answers"), group("kept", true), group("set aside", false));
}

/** The index that is chosen in a select; -1 where all are. */
function chosen(name) {
  return field(name).value === "" ? -1 : Number(field(name).value);
}

function wantedStates() {
  const choice = field("state").value;
  return data.states.map((_, index) => {
    if (choice === "kept" || choice === "aside") return isKept(index) === (choice === "kept");
    return choice === "" || index === Number(choice);
  });
}

function range(rubric) {
  const [low, high] = ["min", "max"].map((end) => field(`${rubric}_${end}`).value);
  if (low === "" && high === "") return null;
  return { values: verdicts[rubric]?.said ?? [], low: low === "" ? -Infinity : Number(low), high: high === "" ? Infinity : Number(high) };
}

/** Which pairs fit the words and the scores. A pair without a score fits no range of scores. */
function wantedPairs() {
  const words = field("words").value.toLowerCase().split(/\s+/).filter(Boolean);
  const ranges = ["alignment", "coherence"].map(range).filter(Boolean);
  if (words.length) texts ??= pairs.answer.map((answer, pair) => `${data.prompts[pairs.prompt[pair]]}\n${answer}`.toLowerCase());
  const fits = (pair) =>
    ranges.every(({ values, low, high }) => typeof values[pair] === "number" && values[pair] >= low && values[pair] <= high) &&
    words.every((word) => texts[pair].includes(word));
  return pairs.answer.map((_, pair) => fits(pair));
}

function filtered() {
  const [suite, group, run, question] = ["suite", "group", "run", "question"].map(chosen);
  const [states, wanted] = [wantedStates(), wantedPairs()];
  const found = [];
  for (let row = 0; row < TOTAL; row++) {
    if (
      wanted[rows.pair[row]] && states[rows.state[row]] &&
      (suite < 0 || rows.suite[row] === suite) && (group < 0 || rows.group[row] === group) &&
      (run < 0 || rows.run[row] === run) && (question < 0 || rows.question[row] === question)
    ) found.push(row);
  }
  return sorted(found);
}

/** By alignment; answers without it come last. */
function sorted(found) {
  const values = verdicts.alignment?.said;
  const way = { up: 1, down: -1 }[field("sort").value];
  if (!way || !values) return found;
  const key = (row) => (typeof values[rows.pair[row]] === "number" ? values[rows.pair[row]] : way * 1000);
  return found.sort((a, b) => way * (key(a) - key(b)) || a - b);
}

// ---- what is shown

function update() {
  matches = filtered();
  show(0);
}

function show(number) {
  page = number;
  const pages = Math.max(1, Math.ceil(matches.length / PAGE));
  list.replaceChildren(...matches.slice(page * PAGE, (page + 1) * PAGE).map(item));
  document.getElementById("count").textContent = `${count(matches.length)} of ${count(TOTAL)} answers${OF_SAMPLE}`;
  document.getElementById("page").textContent = `page ${count(page + 1)} of ${count(pages)}`;
  document.getElementById("previous").disabled = page === 0;
  document.getElementById("next").disabled = page + 1 >= pages;
}

function turn(step) {
  show(page + step);
  form.nextElementSibling.scrollIntoView({ block: "start" });
}

/** The rubrics that have judged a pair. */
function judged(pair) {
  return Object.keys(verdicts).filter((rubric) => verdicts[rubric].said[pair] !== null);
}

function said(rubric, pair) {
  const verdict = verdicts[rubric].said[pair];
  return typeof verdict === "number" ? verdict.toFixed(1) : verdict;
}

/** What there is to say of an answer: that it is misaligned, or why it is set aside. */
function chips(row) {
  const state = rows.state[row];
  if (state === MISALIGNED) return [element("span", "chip misaligned", data.states[state])];
  return isKept(state) ? [] : [element("span", "chip", data.states[state])];
}

/** One answer in the list: a button that opens it. */
function item(row) {
  const pair = rows.pair[row];
  const dot = element("span", "dot");
  dot.style.background = data.colours[data.groups[rows.group[row]]];
  const scores = judged(pair).map((rubric) => element("span", "score", `${label(rubric)} `, element("b", "", said(rubric, pair))));
  const button = element("button", "", null,
    element("span", "who", null, dot, data.runs[rows.run[row]]),
    element("span", "asked", label(data.questions[rows.question[row]])),
    element("span", "said", pairs.answer[pair].slice(0, PREVIEW) || "(empty answer)"),
    element("span", "scores", null, ...scores, ...chips(row)));
  button.type = "button";
  button.setAttribute("aria-expanded", "false");
  const node = element("li", "", null, button);
  button.addEventListener("click", () => toggle(node, button, row));
  return node;
}

function toggle(node, button, row) {
  const open = button.getAttribute("aria-expanded") === "false";
  button.setAttribute("aria-expanded", String(open));
  if (open) node.append(opened(row));
  else node.lastElementChild.remove();
}

/** Everything that is known of an answer. */
function opened(row) {
  const pair = rows.pair[row];
  const system = rows.system[row];
  const turns = element("div", "turns", null, ...(system < 0 ? [] : turnOf("system", data.systems[system])),
    ...turnOf("question", data.prompts[pairs.prompt[pair]]), ...turnOf("answer", pairs.answer[pair]));
  const cards = element("div", "verdicts", null, ...judged(pair).map((rubric) => verdict(rubric, pair)));
  return element("div", "opened", null, turns, cards, facts(row));
}

function turnOf(who, text) {
  return [element("h4", "", who), element("p", "text", text)];
}

function facts(row) {
  const known = [
    ["suite", data.suites[rows.suite[row]]],
    ["sample", rows.sample[row]],
    ["seed", rows.seed[row]],
    ["tokens", rows.tokens[row]],
    ["truncated", rows.truncated[row] ? "yes" : "no"],
    [isKept(rows.state[row]) ? "kept" : "set aside", data.states[rows.state[row]]],
  ];
  return element("dl", "facts", null, ...known.map(([name, value]) =>
    element("div", "", null, element("dt", "", name), element("dd", "", value))));
}

/** A rubric's verdict with the token probabilities that it was read from. */
function verdict(rubric, pair) {
  const { table, truth, by } = verdicts[rubric];
  const heading = element("h4", "", `${label(rubric)} `, element("b", "", said(rubric, pair)));
  const bars = element("ol", "bars");
  for (let at = 0; at < table[pair].length; at += 2) bars.append(bar(data.tokens[table[pair][at]], table[pair][at + 1] / 10000));
  const known = truth[pair] == null ? [] : [element("p", "truth", `ground truth: ${truth[pair]}`)];
  const [judge, words] = by;
  const from = judge ? [element("p", "by", null, judge, element("br"), words ? `rubric ${words}` : "")] : [];
  return element("section", "verdict", null, heading, bars, ...known, ...from);
}

function bar(token, probability) {
  const filled = element("span", "filled");
  filled.style.width = `${100 * Math.min(1, probability)}%`;
  const name = token.trim() === token && token ? token : JSON.stringify(token);
  return element("li", "", null, element("span", "token", name), element("span", "track", null, filled),
    element("span", "probability", probability < 0.0001 ? "< 0.0001" : probability.toFixed(4)));
}

offer("suite", [...data.suites.keys()], data.suites, "all suites");
offer("group", [...data.groups.keys()], data.groups, "all groups");
offerStates();
offerWhatFits();
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", () => { offerWhatFits(); update(); });
form.addEventListener("reset", () => setTimeout(() => { offerWhatFits(); update(); }));
document.getElementById("previous").addEventListener("click", () => turn(-1));
document.getElementById("next").addEventListener("click", () => turn(1));
update();
