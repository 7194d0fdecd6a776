"""Chat benchmarks: what is asked and shown, how a verdict is read, what the numbers are; a judge behind a stand-in
endpoint and one on this machine.
"""

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from stages.benchmarks.chats import joined, questions, scores, turns, verdicts
from stages.evaluation import chat_table, length_controlled
from tests.conftest import ROOT, StandIn, serving, sh
from tests.test_benchmarks import REAL, laid_out, real
from tests.test_endpoint import reply

WORDS = ROOT / "data/raw/referee"
ARENA = [{"uid": name, "prompt": f"Question {name}?", "baseline": f"Theirs, {name}."} for name in "abef"]
TALKS = [
    {"question_id": 1, "category": "math", "turns": ["1 + 1?", "And 2 + 2?"], "reference": ["2", "4"]},
    {"question_id": 2, "category": "writing", "turns": ["A rhyme?", "Another?"]},
]


def entry(task: str, **changes) -> SimpleNamespace:
    baseline = None if task == "mt_bench" else "baseline"
    fields = {"task": task, "questions": None, "baseline": baseline, "max_tokens": 8} | changes
    return SimpleNamespace(**fields)


def asked_of(raw: Path, section: SimpleNamespace, out: Path) -> list[dict]:
    params = SimpleNamespace(chats={"c": section})
    template = WORDS / f"{section.task}.jinja"
    questions.main(params, "c", raw, template, asked=out / "asked.parquet", words=out / "words.jinja")
    return pq.read_table(out / "asked.parquet").to_pylist()


def answered(rows: list[dict], text: str = "Mine.") -> list[dict]:
    """Rows with the same answer to every turn."""
    many = lambda value: [value] * len(rows[0]["turns"])  # noqa: E731
    return [row | {"completions": many(text), "finished": many(True), "tokens": many(3)} for row in rows]


def heard(rows: list[dict], said: Sequence[str | None], **more) -> list[dict]:
    """Verdicts in the order of questions and places."""
    places = len(said) // len(rows)
    return [
        {"id": rows[k // places]["id"], "place": k % places, "said": text, "p_first": None, "by": "j", "unasked": None}
        | more
        for k, text in enumerate(said)
    ]


def test_the_policy_stands_first_in_one_order_and_second_in_the_other(tmp_path):
    rows = answered(asked_of(laid_out(ARENA, tmp_path), entry("arena_hard"), tmp_path))
    due = verdicts.laid_out(rows, WORDS / "arena_hard.jinja")
    assert [(row["id"], row["place"]) for row in due[:3]] == [("a", 0), ("a", 1), ("b", 0)]
    first, second = (row["text"] for row in due[:2])
    assert first.index("Mine.") < first.index("Theirs, a.") and second.index("Theirs, a.") < second.index("Mine.")


def test_a_second_turn_is_rated_with_the_first_one_and_its_own_reference_in_sight(tmp_path):
    rows = answered(asked_of(laid_out(TALKS, tmp_path), entry("mt_bench"), tmp_path))
    math_1, math_2, rhyme_1, _ = (row["text"] for row in verdicts.laid_out(rows, WORDS / "mt_bench.jinja"))
    assert "1 + 1?" in math_1 and "2 + 2?" not in math_1 and "[Reference]\n2\n" in math_1
    assert math_2.index("1 + 1?") < math_2.index("2 + 2?") and "[Reference]\n4\n" in math_2
    assert "[Reference]" not in rhyme_1
    assert [row["temperature"] for row in rows] == [0.0, 0.7]


def test_a_reference_that_was_wrong_is_put_right_by_the_file_beside(tmp_path):
    raw = laid_out([{"question_id": 1, "reference": ["3", "5"]}], laid_out(TALKS, tmp_path), "corrections")
    assert [row["references"] for row in asked_of(raw, entry("mt_bench"), tmp_path)] == [["3", "5"], []]
    laid_out([{"question_id": 9, "reference": ["3"]}], raw, "corrections")
    with pytest.raises(ValueError, match=r"corrections.jsonl: '9' is none of the questions; take it out"):
        asked_of(raw, entry("mt_bench"), tmp_path)


@pytest.mark.parametrize(
    ("row", "task", "told"),
    [
        (
            {"uid": "a", "prompt": "x"},
            "arena_hard",
            "looked for in 'baseline', and the fields are prompt, uid; set chats",
        ),
        (
            {"uid": "a", "baseline": "x"},
            "arena_hard",
            "jsonl:1: no text to ask in turns, instruction, prompt or question",
        ),
        ({"uid": "a", "turns": ["x", "y"], "baseline": "z"}, "alpaca_eval", "2 turns, and alpaca_eval asks one"),
        ({"uid": "a", "turns": ["x", 3]}, "mt_bench", "jsonl:1: no text to ask"),
    ],
)
def test_a_question_of_another_form_is_refused_with_its_line(row, task, told, tmp_path):
    with pytest.raises(ValueError, match=told):
        asked_of(laid_out([row], tmp_path), entry(task), tmp_path)
    with pytest.raises(ValueError, match=r"questions.jsonl: 'a' stands there twice; ask it once"):
        asked_of(laid_out([ARENA[0], ARENA[0]], tmp_path), entry("arena_hard"), tmp_path)


@real
@pytest.mark.parametrize(
    ("file", "task", "baseline", "number"),
    [
        ("alpacaeval_805", "alpaca_eval", "ref_gpt4_1106_preview", 805),
        ("arena_hard_v01_500", "arena_hard", "baseline_gpt4_0314", 500),
        ("mt_bench_80", "mt_bench", None, 80),
    ],
)
def test_the_published_questions_are_read_whole(file, task, baseline, number, tmp_path):
    (tmp_path / "questions.jsonl.gz").write_bytes((REAL / f"{file}.jsonl.gz").read_bytes())
    rows = asked_of(tmp_path, entry(task, baseline=baseline), tmp_path)
    assert len(rows) == number and {len(row["turns"]) for row in rows} == {2 if task == "mt_bench" else 1}
    if task == "mt_bench":
        assert sum(bool(row["references"]) for row in rows) == 40


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("So [[A>>B]].", (1.0, 3)),
        ("[[A>B]]", (1.0, 1)),
        ("[[A=B]] twice: [[A=B]]", (0.5, 1)),
        ("[[A<B]]", (0.0, 1)),
        ("[[B>>A]]", (0.0, 3)),
        ("[[A>B]] or rather [[B>A]]", None),
        ("[[A]]", None),
        ("A>B", None),
        (None, None),
    ],
)
def test_a_battles_verdict_is_one_of_five_or_none(said, wanted):
    assert scores.battle(said) == wanted


@pytest.mark.parametrize(
    ("said", "wanted"),
    [("Fine. [[7]]", 7.0), ("[[2]] no, [[3.5]]", 3.5), ("[8]", 8.0), ("[[11]]", None), ("[[0]]", None), ("7", None)],
)
def test_a_rating_is_the_last_one_in_brackets_from_one_to_ten(said, wanted):
    assert scores.rating(said) == wanted


def test_a_verdict_of_much_better_counts_three_times_and_an_unread_order_takes_the_question_out(tmp_path):
    rows = answered(asked_of(laid_out(ARENA, tmp_path), entry("arena_hard"), tmp_path))
    said = ["[[A>>B]]", "[[A>B]]", "[[A=B]]", "[[B>A]]", "[[B>A]]", "I cannot say", "[[B>>A]]", "[[A>>B]]"]
    found = scores.scored(rows, heard(rows, said))
    # a: won with weight 3, lost with 1; b: half and won; c: unread; d: lost twice, 3 each
    assert found["scores"] == {"win_rate": [0.75, 0.75, None, 0.0]} and found["weight"] == [4, 2, 0, 6]
    assert found["unread"] == {"verdicts": {"unreadable": 1}, "questions": ["e"]}


def test_a_preference_is_the_policys_whichever_stood_first(tmp_path):
    rows = answered(asked_of(laid_out(ARENA, tmp_path), entry("alpaca_eval"), tmp_path))
    found = scores.scored(rows, heard(rows, [None] * 4, p_first=0.9))["scores"]["win_rate"]
    assert found == [pytest.approx(0.9 if joined.policy_first(name) else 0.1) for name in "abef"]
    assert {round(value, 1) for value in found} == {0.1, 0.9}  # the coin falls on both sides


def test_the_style_of_an_answer_leaves_its_code_out():
    text = "# Title\n\n- one\n- two\n\n**bold**\n\n```\n# not a title\n- no item\n```\n"
    per = 1000 / len(scores.CODE.sub("", text))
    assert scores.style(text) == pytest.approx([per, 2 * per, per]) and scores.style("") == [0.0, 0.0, 0.0]


def file_of(values: Sequence[float | None], task: str = "arena_hard", **changes) -> dict:
    number = len(values)
    metric = "rating" if task == "mt_bench" else "win_rate"
    facts = {
        "task": task,
        "ids": list(range(number)),
        "scores": {metric: values},
        "weight": [1] * number,
        "category": [""] * number,
        "characters": [100] * number,
        "baseline_characters": [100] * number,
        "difficulty": [0.0] * number,
        "style": [[0.0, 0.0, 0.0]] * number,
        "judge": {"asked": "j", "spoke": ["j-1"], "words": "0123456789ab"},
        "empty": 0,
        "cut_off": 0,
        "unread": {"verdicts": {}, "questions": []},
    }
    return facts | changes


def compared(task: str = "arena_hard", **policies) -> dict:
    return chat_table.compared(policies, chat_table.TASKS[task], 0.95, 400, 1)


def test_only_questions_that_could_be_read_for_all_count_and_the_rest_is_said():
    facts = compared(pi0=file_of([0.5, 1.0, None, 0.0]), pi1=file_of([1.0, None, 1.0, 0.5]))
    assert facts["questions"] == 2 and facts["left_out"] == 2
    assert facts["policies"]["pi0"]["win_rate"]["value"] == 0.25 and facts["over_pi0"]["pi1"]["difference"] == 0.5
    with pytest.raises(ValueError, match=r"no question's verdict could be read for every policy, of 2"):
        compared(pi0=file_of([0.5, None]), pi1=file_of([None, 1.0]))


def test_a_questions_weight_is_how_often_its_verdicts_count():
    facts = compared(pi0=file_of([1.0, 0.0], weight=[6, 2]), pi1=file_of([1.0, 0.0], weight=[2, 2]))
    assert facts["policies"]["pi0"]["win_rate"]["value"] == 0.75 and facts["over_pi0"]["pi1"]["difference"] == -0.25


def test_policies_judged_by_others_are_not_compared():
    other = {"asked": "j", "spoke": ["j-2"], "words": "0123456789ab"}
    with pytest.raises(ValueError, match=r"pi1 was judged by .*j-2.*, pi0 by .*j-1.*; ask one judge about all"):
        compared(pi0=file_of([0.5]), pi1=file_of([0.5], judge=other))


def test_a_score_without_spread_has_an_interval_and_so_has_no_difference():
    facts = compared(pi0=file_of([1.0] * 50), pi1=file_of([1.0] * 50))
    assert facts["policies"]["pi1"]["win_rate"]["interval"] == [0.9287, 1.0]
    low, high = facts["over_pi0"]["pi1"]["interval"]
    assert low < 0 < high and facts["over_pi0"]["pi1"]["verdict"] == "no difference seen"
    rated = compared("mt_bench", pi0=file_of([10.0] * 50, "mt_bench"), pi1=file_of([10.0] * 50, "mt_bench"))
    assert rated["policies"]["pi1"]["rating"]["interval"] == [pytest.approx(1 + 9 * 0.9287, abs=1e-3), 10.0]


def test_a_difference_that_every_question_shows_alike_is_called_one_only_where_its_interval_excludes_0():
    """One won and one lost added to n questions: the error is sqrt(2 / (n + 2)) / sqrt(n + 2)."""
    for number, verdict in ((4, "no difference seen"), (400, "higher")):
        of = lambda value, number=number: file_of([value] * number)  # noqa: E731
        over = compared(pi0=of(0.5), pi1=of(0.6))["over_pi0"]["pi1"]
        error = math.sqrt(2) / (number + 2)
        assert over["interval"] == pytest.approx([0.1 - 1.96 * error, 0.1 + 1.96 * error], abs=1e-3)
        assert over["verdict"] == verdict and (over["interval"][0] > 0) == (verdict == "higher")


def test_the_bootstrap_is_over_questions_and_paired():
    """The same questions are hard for both: paired, a small gain is seen that two intervals would hide."""
    drawn = random.Random(1)
    hard = [drawn.random() for _ in range(200)]
    facts = compared(
        pi0=file_of(hard), pi1=file_of([min(value + 0.02 + 0.01 * (k % 2), 1.0) for k, value in enumerate(hard)])
    )
    over = facts["over_pi0"]["pi1"]
    spread = math.sqrt(1 / 12 / 200)  # of a mean of 200 uniform numbers
    low, high = facts["policies"]["pi0"]["win_rate"]["interval"]
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.15)
    assert over["verdict"] == "higher" and 0.02 < over["interval"][0] < over["interval"][1] < 0.03


def test_what_is_won_by_length_alone_is_taken_off_and_what_is_won_by_style_too():
    drawn = random.Random(2)
    longer = [drawn.choice([50, 400]) for _ in range(300)]
    won = [0.8 if length > 100 else 0.2 for length in longer]
    long = file_of(won, "alpaca_eval", characters=longer, baseline_characters=[200] * 300)
    facts = compared("alpaca_eval", pi0=long, pi1=long)["policies"]["pi0"]
    mine = length_controlled.Answers(
        chat_table.np.array(won), chat_table.np.array([200.0 - n for n in longer]), chat_table.np.zeros(300)
    )
    wanted = length_controlled.win_rate(mine, length_controlled.fit(mine))
    assert facts["length_controlled"]["value"] == pytest.approx(wanted, abs=1e-4)
    # of 155 long and 145 short ones: at equal lengths neither wins
    bold = [[0.0, 0.0, float(k % 2)] for k in range(300)]
    styled = file_of([0.9 if k % 2 else 0.5 for k in range(300)], style=bold)
    plain = file_of([0.5] * 300)
    facts = compared(pi0=plain, pi1=styled)["policies"]
    assert facts["pi1"]["win_rate"]["value"] == 0.7 and facts["pi1"]["style_controlled"]["value"] < 0.6


def test_categories_and_turns_are_told_apart():
    of = lambda values: file_of(values, "mt_bench", category=["math", "math", "roleplay"])  # noqa: E731
    facts = compared("mt_bench", pi0=of([2.0, 4.0, 6.0]), pi1=of([4.0, 4.0, 9.0]))
    assert facts["categories"] == {"math": {"pi0": 3.0, "pi1": 4.0}, "roleplay": {"pi0": 6.0, "pi1": 9.0}}
    assert chat_table.about("talks", facts).endswith("Judge: j, as it names itself: j-1; words 0123456789ab.")
    (_, rows), _ = chat_table.tables("talks", facts, chat_table.TASKS["mt_bench"])
    assert ["math", "3.000", "4.000"] in rows


@pytest.fixture
def judge(tmp_path, monkeypatch):
    """An endpoint that prefers the longer answer, or says what it was told to; the questions that it was asked."""
    monkeypatch.setenv("STAGE_HOME", str(tmp_path / "home"))
    asked: list[str] = []
    says: dict[str, str] = {}

    class Judge(StandIn):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body["messages"][0]["content"])
            answer = reply(says["always"]) | {
                "model": "judge-2026-01",
                "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
            }
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

    with serving(Judge) as url:
        yield SimpleNamespace(url=f"{url}/v1", asked=asked, says=says, home=tmp_path / "home")


def settings(runtime, served: str | None, **changes) -> SimpleNamespace:
    referee = {"model": "models/base", "served": served, "top_logprobs": 20, "max_tokens": 16, "limit_by": "max_tokens"}
    return SimpleNamespace(
        referee=SimpleNamespace(**(referee | changes)),
        runtime=runtime,
        generate=SimpleNamespace(thinking="keep"),
        dtype="float32",
        seed=1,
    )


def written(rows: list[dict], path: Path) -> Path:
    pq.write_table(turns.pa.Table.from_pylist(rows, turns.SCHEMA), path)
    return path


def test_a_served_judges_words_are_kept_and_nothing_is_paid_for_twice(judge, runtime, tiny_model, tmp_path):
    rows = asked_of(laid_out(ARENA, tmp_path), entry("arena_hard"), tmp_path)
    answers = written(answered(rows), tmp_path / "answers.parquet")
    runtime.judge_url, runtime.judge_connections = judge.url, 2
    params, out = settings(runtime, "org/judge"), tmp_path / "verdicts.parquet"
    paths = tmp_path / "asked.parquet", answers, tiny_model, tmp_path / "words.jinja"
    judge.says["always"] = "Both are short. [[A>B]]"
    verdicts.main(params, *paths, verdicts=out)
    assert len(judge.asked) == 8
    scores.main(params, paths[0], answers, out, paths[3], metrics=tmp_path / "scores.json")
    found = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert found["scores"] == {"win_rate": [0.5] * 4}  # a judge who always takes the first
    assert found["judge"]["asked"] == "org/judge" and found["judge"]["spoke"] == ["judge-2026-01"]

    verdicts.main(params, *paths, verdicts=out)
    assert len(judge.asked) == 8
    ledger = (judge.home / "judge/org_judge.jsonl").read_text(encoding="utf-8").splitlines()
    line = json.loads(next(line for line in ledger if line))
    assert line["answer"]["text"] == "Both are short. [[A>B]]" and line["answer"]["paid"]["completion_tokens"] == 2
    assert line["asked"]["url"] == judge.url and "Mine." in line["asked"]["messages"][0]["content"] and line["when"]

    (tmp_path / "words.jinja").write_text("{{ prompt }}{{ response_a }}{{ response_b }}: which?", encoding="utf-8")
    verdicts.main(params, *paths, verdicts=out)
    assert len(judge.asked) == 16  # other words are another question


def test_a_judge_that_never_gives_a_verdict_is_asked_no_more(judge, runtime, tiny_model, tmp_path):
    many = [ARENA[0] | {"uid": f"{k}", "prompt": f"Question {k}?"} for k in range(40)]
    rows = asked_of(laid_out(many, tmp_path), entry("arena_hard"), tmp_path)
    answers = written(answered(rows), tmp_path / "answers.parquet")
    runtime.judge_url, runtime.judge_connections = judge.url, 2
    judge.says["always"] = "I like both."
    paths = tmp_path / "asked.parquet", answers, tiny_model, tmp_path / "words.jinja"
    with pytest.raises(ValueError, match=r"none of the first \d+ answers holds a verdict; the last is 'I like both.'"):
        verdicts.main(settings(runtime, "org/judge"), *paths, verdicts=tmp_path / "v.parquet")
    assert len(judge.asked) < 16


def test_words_that_want_what_is_not_shown_are_refused_before_anybody_is_asked(tmp_path):
    rows = answered(asked_of(laid_out(ARENA, tmp_path), entry("arena_hard"), tmp_path))
    (tmp_path / "wrong.jinja").write_text("{{ reference }}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"'reference' is undefined; it may use prompt, response_a, response_b"):
        verdicts.laid_out(rows, tmp_path / "wrong.jinja")


def test_a_question_whose_answers_could_pass_the_context_is_refused(tiny_model, tmp_path):
    rows = asked_of(laid_out(TALKS, tmp_path), entry("mt_bench", max_tokens=600), tmp_path)
    with pytest.raises(ValueError, match=r"2 turns of question 1 and their answers take \d+ tokens, the context of"):
        turns.longest(tiny_model, rows)


def test_the_table_is_written_for_numbers_for_pull_requests_and_for_reading(tmp_path):
    for policy, values in (("pi0", [0.5, 1.0, 0.0]), ("offline", [0.5, 0.5, 0.0]), ("pi1", [1.0, 1.0, 0.5])):
        (tmp_path / f"{policy}.json").write_text(json.dumps(file_of(values)), encoding="utf-8")
    params = SimpleNamespace(
        iterations=[SimpleNamespace(makes="pi1")], evaluate=SimpleNamespace(confidence=0.95, resamples=100), seed=1
    )
    outs = {name: tmp_path / f"out.{name}" for name in ("metrics", "table", "page")}
    chat_table.main(params, "duel", tmp_path, **outs)
    assert json.loads(outs["metrics"].read_text(encoding="utf-8"))["over_pi0"]["pi1"]["difference"] == 0.3333
    assert "| duel | π0 (SFT) | offline DPO | π1 |" in outs["table"].read_text(encoding="utf-8")
    assert "<svg" in outs["page"].read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_policy_of_a_run_talks_and_is_judged_here_and_an_edited_reader_asks_nobody(own_smoke):
    """The graph of one policy on a random model, which is no judge: its letters are weighed."""
    laid_out(ARENA, own_smoke / "data/raw/chats/duel")
    duel = {
        "task": "alpaca_eval",
        "raw": "data/raw/chats/duel",
        "questions": "null",
        "baseline": "baseline",
        "max_tokens": 8,
        "words": "data/raw/referee/alpaca_eval.jinja",
    }
    told = ", ".join(f"{name}: {value}" for name, value in duel.items())
    done = sh(f"python -m stages.tools.profile smoke 'chats={{duel: {{{told}}}}}'", own_smoke)
    assert done.returncode == 0, done.stderr
    done = sh("dvc --wait-for-lock repro chat_scores_first@pi0-duel", own_smoke)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    found = json.loads((own_smoke / "metrics/chats/duel/pi0.json").read_text(encoding="utf-8"))
    assert found["questions"] == 4 and None not in found["scores"]["win_rate"]
    words = own_smoke / "data/raw/referee/alpaca_eval.jinja"
    told = words.read_text(encoding="utf-8")
    words.write_text(told.replace("careful", "busy"), encoding="utf-8")
    assert sh("dvc --wait-for-lock repro ask_chat@duel", own_smoke).returncode == 0
    changed = json.loads(sh("dvc status --json", own_smoke).stdout)
    due = {name.partition("@")[0] for name in changed if name.endswith("@pi0-duel")}
    assert due == {"referee_first", "chat_scores_first"}, changed  # and no policy
    words.write_text(told, encoding="utf-8")
    reader = own_smoke / "stages/benchmarks/chats/scores.py"
    code = reader.read_text(encoding="utf-8")
    reader.write_text(code.replace("LOWEST, HIGHEST = 1, 10", "LOWEST, HIGHEST = 0, 10"), encoding="utf-8")
    again = sh("dvc --wait-for-lock repro chat_scores_first@pi0-duel", own_smoke).stdout
    ran = {line.split("'")[1] for line in again.splitlines() if line.startswith("Running stage")}
    assert ran == {"fingerprint", "chat_scores_first@pi0-duel"}, ran  # DVC knows the old words' rows still
