"""Labels on the policy's own samples: which pairs are asked about, who answers, and what a file of answers must be."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.signals import annotate


def sample(prompt: str, number: int, text: str = "", reward: float | None = 0.0) -> dict:
    said = {
        "prompt": [{"role": "user", "content": f"Tell me about {prompt}."}],
        "completion": text or f"answer {number}",
        "finished": True,
    }
    return {"id": prompt, "sample": number, "reward": reward, **said}


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["x", "y", " "])), max_size=40), st.integers(1, 6))
def test_every_prompt_is_asked_about_or_dropped_by_name_and_no_pair_has_one_text_twice(drawn, number):
    candidates = [sample(prompt, k, text) for k, (prompt, text) in enumerate(drawn)]
    rows, drops = annotate.questions(candidates, "pi0", number, 1)
    assert len(rows) + drops.total() == len({prompt for prompt, _ in drawn}) and len(rows) <= number
    assert all(row["a"]["completion"] != row["b"]["completion"] and row["a"]["id"] == row["b"]["id"] for row in rows)
    assert (rows, drops) == annotate.questions(candidates[::-1], "pi0", number, 1)


def test_which_answer_is_shown_first_tells_nothing():
    candidates = [sample(str(p), k) for p in range(200) for k in range(2)]
    rows, _ = annotate.questions(candidates, "pi0", 200, 1)
    assert 70 < sum(row["a"]["sample"] == 0 for row in rows) < 130


def test_the_simulated_annotator_follows_r_star_by_its_probability():
    good = "Bees make honey in the hive. The queen leads her busy colony all summer."
    better = {"a": sample("bees", 0, good), "b": sample("bees", 1, "no")}
    drawn = Counter(annotate.by_r_star(better | {"id": str(k)}, 1) for k in range(200))
    assert drawn["A"] > 190  # r* is 10 against 0: sigmoid(10) = 0.99995
    alike = {"a": sample("bees", 0, good), "b": sample("bees", 1, good)}
    assert 70 < Counter(annotate.by_r_star(alike | {"id": str(k)}, 1) for k in range(200))["A"] < 130


@pytest.mark.parametrize(("a", "b", "told"), [(1.0, 0.0, "A"), (0.0, 1.0, "B"), (0.5, 0.5, "tie"), (None, 1.0, "skip")])
def test_the_judge_prefers_the_higher_reward(a, b, told):
    assert annotate.by_judge({"a": sample("p", 0, reward=a), "b": sample("p", 1, reward=b)}) == told


def test_the_side_that_won_is_chosen():
    row = {"id": "pi0:p", "a": sample("p", 0, "one"), "b": sample("p", 1, "two")}
    made = annotate.pair(row, "B")
    assert (made["chosen"][0]["content"], made["rejected"][0]["content"], made["margin"], made["id"]) == (
        "two",
        "one",
        None,
        "pi0:p",
    )


@pytest.fixture
def asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STAGE_HOME", raising=False)
    rows = [{"id": f"pi0:{p}", "a": sample(p, 0, "one"), "b": sample(p, 1, "two")} for p in "pq"]
    with pytest.raises(ValueError, match="2 pairs wait for labels"):
        annotate.by_people(rows, tmp_path / "pi0.jsonl")
    return rows, [
        json.loads(line) for line in (tmp_path / ".scratch/labels/pi0.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def answered(tmp_path, rows, lines) -> list[str]:
    (tmp_path / "pi0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return annotate.by_people(rows, tmp_path / "pi0.jsonl")


def test_answers_come_back_by_id_and_in_any_order(asked, tmp_path):
    rows, lines = asked
    assert answered(tmp_path, rows, [lines[1] | {"choice": "B"}, lines[0] | {"choice": "skip"}]) == ["skip", "B"]


def test_labels_that_were_filled_in_where_the_questions_stand_are_not_written_over(asked, tmp_path):
    rows, lines = asked
    out = tmp_path / ".scratch/labels/pi0.jsonl"
    out.write_text(
        "".join(json.dumps(line) + "\n" for line in (lines[0] | {"choice": "A"}, lines[1])), encoding="utf-8"
    )
    text = out.read_text(encoding="utf-8")
    with pytest.raises(
        ValueError,
        match=r"pi0.jsonl has 1 lines filled in, which are not written over: save it as .*pi0.jsonl when it is whole",
    ):
        annotate.by_people(rows, tmp_path / "pi0.jsonl")
    assert out.read_text(encoding="utf-8") == text


def test_an_answer_with_a_line_separator_of_unicode_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STAGE_HOME", raising=False)
    rows = [{"id": "pi0:p", "a": sample("p", 0, "one\u2028two"), "b": sample("p", 1, "three\x85four")}]
    with pytest.raises(ValueError, match="1 pairs wait for labels"):
        annotate.by_people(rows, tmp_path / "pi0.jsonl")
    written = (tmp_path / ".scratch/labels/pi0.jsonl").read_text(encoding="utf-8")
    (tmp_path / "pi0.jsonl").write_text(written.replace('"choice": null', '"choice": "A"'), encoding="utf-8")
    assert annotate.by_people(rows, tmp_path / "pi0.jsonl") == ["A"]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda a, b: [a, b | {"A": "edited"}], r"pi0.jsonl:2: A is not what was asked; put it back, for 'pi0:q'"),
        (lambda a, b: [a, b | {"choice": None}], r"pi0.jsonl:2: choice = None must be one of A, B, tie, skip"),
        (lambda a, b: [a], r"no line for 'pi0:q'; every question wants an answer"),
        (lambda a, b: [a, b, b | {"id": "pi9:x"}], r"1 lines answer questions that were not asked, 'pi9:x' first"),
        (
            lambda a, b: [a, b, a | {"choice": "B"}],
            r"pi0.jsonl:3: 'pi0:p' is answered in line 1 already; keep one of the two",
        ),
        (lambda a, b: [a, [1]], r"pi0.jsonl:2: no JSON object with an id"),
    ],
)
def test_a_file_that_does_not_answer_these_questions_is_refused_with_its_line(asked, tmp_path, spoil, told):
    rows, lines = asked
    with pytest.raises(ValueError, match=told):
        answered(tmp_path, rows, spoil(*(line | {"choice": "A"} for line in lines)))


def test_questions_lie_in_the_home_that_survives_and_are_named_from_here_where_it_is_below(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STAGE_HOME", str(tmp_path / "home"))
    assert annotate.asked_in(Path("data/raw/labels/pi0.jsonl")) == Path("home/labels/pi0.jsonl")
    monkeypatch.setenv("STAGE_HOME", "/elsewhere")
    assert annotate.asked_in(Path("data/raw/labels/pi0.jsonl")) == Path("/elsewhere/labels/pi0.jsonl")
