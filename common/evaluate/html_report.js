// The view of 05_outputs.html: the scores, and the outputs of one or two models.
const isBool = x => typeof x === "boolean", percent = x => (100 * x).toFixed(1);
const VERDICT = { true: ["✓", "right", "right"], false: ["✗", "wrong", "wrong"],
  null: ["!", "failed", "warn"], undefined: ["·", "no row", "none"] };
const OUTCOME = {  // of a row
  "": ["all"],
  right: ["right", r => r.correct === true],
  wrong: ["wrong", r => r.correct === false],
  unboxed: ["no answer in a box", r => r.correct !== null && r.extraction_method !== "boxed"],
  cut: ["cut by length", r => r.finish_reason === "length"],
  timeout: ["grader timed out", r => r.timed_out],
  failed: ["failed", r => r.correct === null],
};
const PAIR = {  // of two strict verdicts; an item that failed has none and is in no pair
  "": ["any"],
  differ: ["A and B differ", (a, b) => a !== b],
  a: ["A right, B wrong", (a, b) => a && !b],
  b: ["A wrong, B right", (a, b) => !a && b],
};
let benchmark, models, sample;  // what the form asks for, by number
const itemsOf = [];  // of each benchmark

function setUp() {
  data.benchmarks.forEach(() => itemsOf.push([]));
  for (const item of items) item.number = itemsOf[item.benchmark].push(item);
  const notes = data.private.map(name =>
    `${name}: scores only, its questions and outputs must not be spread.`);
  $("status").textContent = notes.join(" ");
  if (data.scores.length) $("status").after(showScores());
  const fields = { benchmark: "Benchmark", a: "Model A", b: "Model B", sample: "Sample",
    outcome: "Outcome of A", pair: "A against B" };
  form.prepend(...entries(fields).map(([name, words]) => select(name, words)));
  const graders = make("input", { type: "checkbox", name: "graders", value: "disagree" });
  form.append(make("label", "check", graders, " strict and paper grader disagree"));
}

// --- the scores: a row a model, a column a benchmark; a link leads to that model's outputs
function showScores() {
  const distinct = key => [...new Set(data.scores.map(score => score[key]))];
  const names = distinct("model"), columns = distinct("benchmark");
  const cell = (model, name) =>
    showScore(data.scores.find(s => s.benchmark === name && s.model === model), name, model);
  const table = make("table", {},
    make("tr", {}, ...["model", ...columns].map(name => make("th", { scope: "col" }, name))),
    ...names.map(model => make("tr", {}, make("th", { scope: "row" }, model),
      ...columns.map(name => cell(model, name)))));
  const scroll = { class: "scroll", tabindex: "0", role: "group", "aria-label": "Scores" };
  const node = make("details", { id: "scores" },
    make("summary", {},
      "Accuracy in %, by the strict grader with its interval, and by the paper's grader"),
    make("div", scroll, table));
  node.open = !location.hash;  // who follows a link wants the item
  return node;
}
function showScore(score, benchmark, model) {
  if (typeof score?.accuracy !== "number") return make("td", {}, "–");
  const { accuracy, low, high, paper_accuracy: paper, n } = score, number = percent(accuracy);
  const isKnown = low !== null && high !== null, bar = make("span", "bar");
  for (const [name, x] of entries({ low, high })) {
    bar.style.setProperty(`--${name}`, `${100 * (x ?? accuracy)}%`);
  }
  const href = "#" + new URLSearchParams({ benchmark, a: model });
  const stored = data.benchmarks.some(b => b.name === benchmark && b.models.includes(model));
  const interval = make("small", {}, isKnown ? `${percent(low)} to ${percent(high)}` : "");
  const notes = [paper !== null && `paper's grader ${percent(paper)}`, n !== null && `n = ${n}`];
  return make("td", {}, stored ? make("a", { href }, number) : make("b", {}, number), interval,
    bar, make("small", {}, notes.filter(Boolean).join(", ")));
}

// --- the filters
function find(wanted) {
  benchmark = fill("benchmark", data.benchmarks.map(b => [b.name]), wanted);
  const { models: names, samples } = data.benchmarks[benchmark];
  const choices = names.map(model => [model]);
  const a = fill("a", choices, wanted), b = fill("b", [["", "none"], ...choices], wanted) - 1;
  models = b < 0 ? [a] : [a, b];
  sample = fill("sample", samples.map(number => [String(number)]), wanted);
  field.sample.parentNode.hidden = samples.length < 2;
  for (const [name, table] of entries({ outcome: OUTCOME, pair: PAIR })) {
    fill(name, entries(table).map(([value, [words]]) => [value, words]), wanted);
  }
  field.pair.disabled = models.length < 2;
  field.graders.checked = wanted.get("graders") === "disagree";
  const all = itemsOf[benchmark];
  return [all.filter(item => matches(item) && hasText(item)), all.length];
}
function matches(item) {
  const answers = answersOf(item), [a, b] = answers, outcome = OUTCOME[field.outcome.value][1];
  const pair = models.length > 1 && PAIR[field.pair.value][1];
  const differ = r =>
    isBool(r?.correct) && isBool(r.correct_paper) && r.correct !== r.correct_paper;
  if (outcome && !(a && outcome(a))) return false;
  if (pair && !(isBool(a?.correct) && isBool(b?.correct) && pair(a.correct, b.correct))) {
    return false;
  }
  return !field.graders.checked || answers.some(differ);
}
const answersOf = item => models.map(m => item.answers[m][sample]);
const textsOf = item => [item.question, ...answersOf(item).map(r => r?.output)];
function marksOf(item) {
  return answersOf(item).map((r, m) => {
    const [sign, words, style] = VERDICT[r?.correct];
    return [sign, `${"AB"[m]} ${words}`, style];
  });
}

// --- the detail of one item
function showItem(item) {
  const answers = answersOf(item);
  const whose = i => [..."AB"].filter((_, m) => answers[m]?.prompt === i).join(" and ");
  const prompts = item.prompts.map((prompt, i) => whose(i) && make("details", {},
    make("summary", {}, `Exact prompt of ${whose(i)}`), pre("", prompt)));
  return [title(item), pre("question", item.question ?? "(no question is stored)"),
    ...prompts.filter(Boolean), make("h3", {}, "Gold"), pre("gold", item.gold ?? "–"),
    make("div", "pair", ...answers.map(showAnswer))];
}
function showAnswer(r, m) {
  const name = data.benchmarks[benchmark].models[models[m]];
  const head = make("h2", {}, `${"AB"[m]}: ${name}`);
  if (!r) return make("section", {}, head, "No row for this item and sample.");
  const verdict = (grader, is) => [VERDICT[is][2], `${grader} ${VERDICT[is][0]} ${VERDICT[is][1]}`];
  const badges = [verdict("strict", r.correct),
    isBool(r.correct_paper) && verdict("paper", r.correct_paper),
    r.finish_reason === "length" && ["warn", "cut by length"],
    r.timed_out && ["warn", "grader timed out"]];
  const method = make("bdi", {}, r.extraction_method ?? "none");
  const reason = make("bdi", {}, r.finish_reason ?? "unknown");
  const length = `; ${r.n_tokens ?? "unknown number of"} tokens)`;
  return make("section", {}, head, ...badges.filter(Boolean).map(badge),
    make("h3", {}, "Extracted answer (", method, ")"), pre("", r.extracted ?? "–"),
    make("h3", {}, "Output (finish reason: ", reason, length), pre("", r.output ?? ""));
}
