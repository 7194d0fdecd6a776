"""Filter, split, audit, benchmarks: what each rule takes, that every row is accounted for, and that no prompt is on
two sides.
"""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.data import audit, filter, mix_start, pair_format, phrases, split
from stages.data.sources import hh_rlhf
from stages.messages import MESSAGES

HH = Path("../shared/data/preferences/hh_harmless_test_raw.jsonl.gz")
NUMBERS = SimpleNamespace(
    filter=SimpleNamespace(max_tokens=2000, near_duplicates=0.0),
    split=SimpleNamespace(heldout_share=0.5),
    audit=SimpleNamespace(rows=100),
    phrases=SimpleNamespace(words=5),
)


def user(text: str | None) -> list[dict]:
    return [{"role": "user", "content": text}]


def row(
    prompt: str | None = "q",
    chosen: str | None = "good",
    rejected: str | None = "bad",
    margin: float | None = 3.0,
    id: str = "1",
) -> dict:
    sides = {
        side: [{"role": "assistant", "content": text}] for side, text in (("chosen", chosen), ("rejected", rejected))
    }
    return {
        "id": id,
        "source": "s",
        "prompt": user(prompt),
        **sides,
        "margin": margin,
        "chosen_finished": True,
        "rejected_finished": True,
    }


class Mix:
    """A mix in a folder, to which sets are added; `add` gives the ids in it afterwards and the set's account."""

    def __init__(self, folder: Path, model: Path, questions: str = "") -> None:
        self.folder, self.model, self.last = folder, model, "start"
        folder.mkdir(exist_ok=True)
        mix_start.main(None, mixed=folder / "start.parquet", account=folder / "start.json")
        (folder / "raw").mkdir(exist_ok=True)
        (folder / "raw/set.jsonl").write_text(questions, encoding="utf-8")
        phrases.main(NUMBERS, folder / "raw", phrases=folder / "phrases.parquet")
        tests = pa.schema([("id", pa.string()), ("prompt", MESSAGES)])
        pq.write_table(
            pa.Table.from_pylist([{"id": "t", "prompt": user("A test  prompt")}], tests), folder / "test.parquet"
        )

    def add(
        self, rows: list[dict], name: str = "s", min_margin: float = 0.0, most: float = 0
    ) -> tuple[list[str], dict]:
        file = {kind: self.folder / f"{name}.{kind}" for kind in ("prepared", "pairs", "parquet", "json")}
        pq.write_table(pa.Table.from_pylist([{**r, "source": name} for r in rows], pair_format.SCHEMA), file["pairs"])
        counts = {
            "dataset": "d",
            "revision": None,
            "licence": "MIT",
            "paper_pairs": 7,
            "differs": "",
            "rows_read": len(rows),
        }
        file["prepared"].write_text(
            json.dumps(counts | {"rows_in": len(rows), "rows_out": len(rows), "drops": {}}), encoding="utf-8"
        )
        inputs = {
            "preferences": file["pairs"],
            "prepared": file["prepared"],
            "benchmarks": self.folder / "phrases.parquet",
            "model": self.model,
        }
        before = {"before": self.folder / f"{self.last}.parquet", "before_account": self.folder / f"{self.last}.json"}
        outs = {"mixed": file["parquet"], "account": file["json"]}
        filter.main(
            NUMBERS, name, min_margin, most, **inputs, **before, reserved=[self.folder / "test.parquet"], **outs
        )
        self.last = name
        told = json.loads(file["json"].read_text(encoding="utf-8"))
        assert all(t["rows_in"] == t["rows_out"] + sum(t["drops"].values()) for t in told.values())
        return pq.read_table(file["parquet"])["id"].to_pylist(), told


@pytest.fixture
def mix(tmp_path, tiny_model):
    return Mix(tmp_path, tiny_model, '{"question": "How many legs has a spider, and why?"}\n{"turns": ["Short one"]}\n')


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        (row(chosen=" "), "empty_turn"),
        (row(rejected=None), "empty_turn"),
        (row(prompt=""), "empty_turn"),
        (row(prompt="a\0b"), "nul_character"),
        (row() | {"prompt": user("a") + user("b")}, "broken_alternation"),
        (row() | {"prompt": []}, "broken_alternation"),
        (row(prompt="go on<|im_end|>\n<|im_start|>assistant\nI do"), "control_words"),
        (row(rejected="bad<|im_end|>"), "control_words"),
        (row(chosen="x", rejected="x "), "identical_sides"),
        (row(margin=None), "margin_unknown"),
        (row(margin=0.0), "tie"),
        (row(margin=1.0), "small_margin"),
        (row(chosen="long " * 3000), "over_max_tokens"),
        (row(prompt="a TEST prompt"), "in_test"),
        (row(prompt="Tell me: how many legs has a spider?"), "in_benchmark"),
        (row(prompt="short one!"), "in_benchmark"),
    ],
)
def test_each_rule_takes_its_row(mix, bad, rule):
    kept, told = mix.add([bad | {"id": "bad"}, row(prompt="other", id="good")], min_margin=2.0)
    assert kept == ["good"] and {k: v for k, v in told["s"]["drops"].items() if v} == {rule: 1}


BRIEF, SAID = {"role": "system", "content": "be brief"}, {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    "fine",
    [
        row(margin=2.0),
        row(prompt="שלום, מה שלומך?", chosen="👍🏽 שלום"),
        row(prompt="how many legs had a fly"),
        row(chosen="good", rejected="bad" * 60),
        row() | {"prompt": [BRIEF, *user("q"), SAID, *user("q2")]},
    ],
)
def test_a_sound_row_is_kept_as_it_is(mix, fine):
    mix.add([fine], min_margin=2.0)
    assert pq.read_table(mix.folder / "s.parquet").to_pylist() == [fine]


def test_what_the_template_refuses_is_dropped_by_name_or_folded(tmp_path, tiny_model):
    """As with Gemma, which takes no system role, and with a template for one question and one answer."""
    model, known = tmp_path / "model", json.loads((tiny_model / "text_contract.json").read_text(encoding="utf-8"))
    shutil.copytree(tiny_model, model)
    rows = [
        row() | {"id": "system", "prompt": [BRIEF, *user("q1")]},
        row() | {"id": "turns", "prompt": [*user("q2"), SAID, *user("q3")]},
        row(prompt="q4", id="plain"),
    ]
    for name, changes, kept in (
        ("a", {"refused": {"system_role": "System role not supported"}}, ["turns", "plain"]),
        ("b", {"refused": {"several_turns": "one turn"}}, ["system", "plain"]),
        ("c", {"refused": {"system_role": "no"}, "fold_system": True}, ["system", "turns", "plain"]),
    ):
        (model / "text_contract.json").write_text(json.dumps(known | changes), encoding="utf-8")
        mix = Mix(tmp_path / name, model)
        assert mix.add(rows)[0] == kept
    folded = pq.read_table(mix.folder / "s.parquet")["prompt"].to_pylist()
    assert folded[0] == user("be brief\n\nq1") and folded[1:] == [rows[1]["prompt"], user("q4")]


def test_of_a_contradiction_both_rows_go_and_of_a_duplicate_the_first_stays(mix):
    rows = [
        row(id="1"),
        row(chosen="bad", rejected="good", id="2"),
        row(prompt="twice", id="3"),
        row(prompt="TWICE ", id="4"),
    ]
    kept, told = mix.add(rows)
    assert kept == ["3"] and told["s"]["drops"]["contradictory"] == 2 and told["s"]["drops"]["duplicate"] == 1


def test_a_later_set_repeats_nothing_and_what_it_contradicts_leaves_the_earlier_account(mix):
    mix.add([row(id="a1"), row(prompt="kept", id="a2")], "first")
    kept, told = mix.add(
        [row(prompt=" Kept", id="b1"), row(chosen="bad", rejected="good", id="b2"), row(prompt="new", id="b3")],
        "second",
    )
    assert kept == ["a2", "b3"]
    assert (told["first"]["rows_out"], told["first"]["drops"]["contradictory"]) == (1, 1)
    assert (told["second"]["drops"]["duplicate"], told["second"]["drops"]["contradictory"]) == (1, 1)


def test_a_cap_keeps_the_same_rows_in_whatever_order_they_come(tmp_path, tiny_model):
    rows = [row(prompt=f"prompt {i}", id=str(i)) for i in range(50)]
    kept = [
        Mix(tmp_path / name, tiny_model).add(order, most=most)[0]
        for name, order, most in (("a", rows, 10), ("b", rows[::-1], 0.2))
    ]
    assert len(kept[0]) == 10 and sorted(kept[0]) == sorted(kept[1])


def test_an_id_that_stands_twice_and_a_set_of_which_nothing_is_left_are_errors(mix):
    with pytest.raises(ValueError, match=r"id '1' stands in .* more than once"):
        mix.add([row(), row(prompt="p")])
    assert mix.add([row(), row()], "same")[0] == ["1"]  # a row that stands there again, id and all, is a duplicate
    with pytest.raises(ValueError, match=r"none of 1 pairs is kept, drops .*'tie': 1"):
        mix.add([row(margin=0.0)])


WORDS = [
    *"the quick brown fox jumps over the lazy dog while nine old owls".split(),
    *"watch from a tall dark tree and say nothing at all".split(),
]


def text(k: int, changed: int | None = None) -> str:
    """A text of its own for each k, with one word changed or none."""
    words = [f"{word}{(i * k) % 7}" for i, word in enumerate(WORDS)]
    return " ".join("other" if i == changed else word for i, word in enumerate(words))


def test_a_near_duplicate_goes_and_pairs_that_share_a_prompt_and_an_answer_stay(tmp_path, tiny_model, monkeypatch):
    """A word changed in the middle of 23 leaves 18 of 24 three-word phrases, a similarity of 0.75; one at an end 20 of
    22.
    """
    monkeypatch.setattr(NUMBERS.filter, "near_duplicates", 0.7)
    rows = [
        row(text(1), text(2), text(3), id="a"),
        row(text(1), text(2), text(4), id="same prompt and chosen"),
        row(text(5), text(2), text(3), id="same answers"),
        row(text(1, 0), text(2, 22), text(3), id="near"),
        row(text(1, 9), text(2), text(3), id="nearer"),
    ]
    mix = Mix(tmp_path, tiny_model)
    mix.add(rows[:1], "one")
    kept, told = mix.add(rows[1:], "two")
    assert kept == ["a", "same prompt and chosen", "same answers"] and told["two"]["drops"]["near_duplicate"] == 2
    monkeypatch.setattr(NUMBERS.filter, "near_duplicates", 0.0)
    assert len(Mix(tmp_path / "off", tiny_model).add(rows)[0]) == 5


texts = st.sampled_from(["a", "b", "A ", "", "c", "a test prompt"])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(texts, texts, texts, st.sampled_from([None, 0.0, 1.0])), min_size=1, max_size=20),
    cut=st.integers(0, 20),
)
def test_two_sets_give_what_their_union_gives_but_for_contradictions_and_no_prompt_is_on_both_sides(
    tmp_path, tiny_model, rows, cut
):
    rows = [row(*values, id=str(i)) for i, values in enumerate(rows)] + [row("sure", id="s1"), row("certain", id="s2")]
    whole, _ = Mix(tmp_path / "whole", tiny_model).add(rows)
    parts = Mix(tmp_path / "parts", tiny_model)
    parts.add([row("first", id="f"), *rows[:cut]], "one")
    kept, _ = parts.add(rows[cut:] + [row("last", id="l")], "two")
    assert [name for name in kept if name not in ("f", "l")] == whole
    out = [tmp_path / name for name in ("train", "heldout", "split.json")]
    try:
        split.main(
            NUMBERS,
            tmp_path / "parts/two.parquet",
            tmp_path / "parts/two.json",
            train=out[0],
            heldout=out[1],
            metrics=out[2],
        )
    except ValueError as error:
        assert "both need some" in str(error)
        return
    sides = [{r["prompt"][0]["content"].lower().strip() for r in pq.read_table(path).to_pylist()} for path in out[:2]]
    assert not sides[0] & sides[1] and sum(len(pq.read_table(path)) for path in out[:2]) == len(kept)


@pytest.mark.skipif(not HH.exists(), reason="needs the real HH file of ../shared/data")
def test_of_real_preferences_no_prompt_is_on_both_sides_and_no_row_is_lost(mix):
    hh_rlhf.main(None, "s", HH, preferences=mix.folder / "hh.parquet", metrics=mix.folder / "hh.json")
    kept, told = mix.add(pq.read_table(mix.folder / "hh.parquet").to_pylist())
    out = [mix.folder / name for name in ("train", "heldout", "split.json")]
    split.main(NUMBERS, mix.folder / "s.parquet", mix.folder / "s.json", train=out[0], heldout=out[1], metrics=out[2])
    sides = [[str(r["prompt"]).casefold().split() for r in pq.read_table(path).to_pylist()] for path in out[:2]]
    assert len(kept) > 1000 and len(sides[0]) + len(sides[1]) == len(kept) == told["s"]["rows_out"]
    assert not {str(words) for words in sides[0]} & {str(words) for words in sides[1]}


def test_the_audit_counts_tokens_and_the_difference_from_the_paper(mix, tiny_model):
    mix.add(
        [
            row(prompt="one two", chosen="one two three four", rejected="one", id="1"),
            row(prompt="b", margin=0.0, id="2"),
        ]
    )
    audit.main(NUMBERS, mix.folder / "s.parquet", mix.folder / "s.json", tiny_model, metrics=mix.folder / "data.json")
    told = json.loads((mix.folder / "data.json").read_text(encoding="utf-8"))["s"]
    assert (told["rows_read"], told["pairs_made"], told["pairs_kept"], told["paper_pairs"], told["difference"]) == (
        2,
        2,
        1,
        7,
        -6,
    )
    assert (
        told["chosen_tokens"] > told["prompt_tokens"] > told["rejected_tokens"] > 0 and told["longer_is_chosen"] == 1.0
    )


def test_a_benchmark_without_a_question_is_an_error(tmp_path):
    (tmp_path / "set.jsonl").write_text('{"label": 3}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"set.jsonl:1: no object with one of the fields"):
        phrases.main(NUMBERS, tmp_path, phrases=tmp_path / "p.parquet")
