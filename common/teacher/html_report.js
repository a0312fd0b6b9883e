// The view of 02_critiques.html: each response and its critique, filtered by verdict and gold.
const FILTERS = {  // words, and the cases of html_report.py; a case is response_verdict
  all: ["all"],
  accepts: ["teacher right, gold wrong", "wrong_right"],
  rejects: ["teacher wrong, gold right", "right_wrong"],
  agree: ["they agree", "right_right", "wrong_wrong"],
  no_gold: ["no gold, or not graded", "no_gold"],
  failed: ["no critique or answer", "failed"],
};
const SIGN = { right: ["✓", "right"], wrong: ["✗", "wrong"] }, NONE = ["·", "none"];
const EXPLANATION = "A response is right by its gold if its final answer is, by the strict grader. "
  + "A critique may fault its reasoning with good reason.";

function setUp() {
  const sampled = data.step > 1 ? ` One row in ${data.step} is here; the files have all.` : "";
  $("status").textContent = EXPLANATION + sampled;
  items.forEach((item, i) => item.number = i + 1);
  const buttons = entries(FILTERS).map(([value, [words]]) => {
    const button = make("input", { type: "radio", name: "case", value });
    return make("label", "check", button, words, make("b", { id: `n-${value}` }));
  });
  const fields = make("fieldset", { "aria-label": "Teacher and gold" }, ...buttons);
  form.prepend(fields, select("teacher", "Teacher"));
}

function find(wanted) {
  const teachers = [["", "all"], ...data.teachers.map(name => [name])];
  const teacher = data.teachers[fill("teacher", teachers, wanted) - 1];
  const rows = items.filter(item => (!teacher || item.teacher === teacher) && hasText(item));
  const groups = {};
  for (const [value, [, ...cases]] of entries(FILTERS)) {
    groups[value] = cases.length ? rows.filter(item => cases.includes(item.case)) : rows;
    $(`n-${value}`).textContent = groups[value].length.toLocaleString("en");
  }
  const chosen = Object.hasOwn(FILTERS, wanted.get("case")) ? wanted.get("case") : "all";
  field.case.value = chosen;
  return [groups[chosen], items.length];
}
const critiqueOf = item => item.critique ?? item.critique_raw;
const textsOf = item => [item.question, item.response, critiqueOf(item), item.reason];
const byGold = item => ({ true: "right", false: "wrong" })[item.correct] ?? "unknown";

function marksOf(item) {
  return [["teacher", item.verdict], ["gold", byGold(item)]].map(([judge, verdict]) => {
    const [sign, style] = SIGN[verdict] ?? NONE;
    return [sign, `${judge}: ${verdict}`, style];
  });
}
function showItem(item) {
  const judged = (judge, verdict) => {
    const [sign, style] = SIGN[verdict] ?? NONE;
    return badge([style, `${judge} ${sign} ${verdict ?? "none"}`]);
  };
  const cut = reason => reason === "length" ? [badge(["warn", "cut by length"])] : [];
  const failure = item.reason ? [make("p", "warn", item.reason)] : [];
  const origin = [item.source, item.generator].filter(Boolean).join(", ");
  return [title(item), pre("question", item.question), make("h3", {}, "Gold"),
    pre("gold", item.gold ?? "–"),
    make("div", "pair",
      make("section", {}, make("h2", {}, "Response ", make("small", {}, origin)),
        judged("by its gold", byGold(item)), ...cut(item.finish_reason),
        pre("", item.response ?? "–")),
      make("section", {}, make("h2", {}, "Critique ", make("small", {}, item.teacher)),
        judged("verdict", item.verdict), ...cut(item.critique_finish_reason), ...failure,
        pre("", critiqueOf(item) ?? "–")))];
}
