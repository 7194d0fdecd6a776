"""Sources, filter, prompts, batches, history: rows in are rows out and drops by name, joined by id, split by prompt."""

import json

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import batch, dpo, filter, history, offline, prompts
from stages.sources import hub, quickstart


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def row(prompt="q", chosen="good", rejected="bad", tie=False, id="1") -> dict:
    answer = {side: [{"role": "assistant", "content": text}] for side, text in (("chosen", chosen), ("rejected", rejected))}
    return {"id": id, "source": "s", "prompt": user(prompt), **answer, "tie": tie, "strength": None, "chosen_finished": True, "rejected_finished": True}


def export(**changes) -> str:
    record = {
        "id": 1,
        "conversation": [{"from": "human", "value": "q"}],
        "responses": {"A": {"text": "a", "finish_reason": "stop"}, "B": {"text": "b", "finish_reason": "length"}},
        "annotation": {"choice": "B", "strength": 2},
    } | changes
    return json.dumps(record)


def test_the_label_decides_which_response_is_chosen_and_the_finish_reason_travels_with_it():
    made = quickstart.to_row(json.loads(export()))
    assert made["chosen"][0]["content"] == "b" and made["rejected"][0]["content"] == "a"
    assert (made["chosen_finished"], made["rejected_finished"]) == (False, True)


def test_a_line_that_is_no_json_is_a_named_drop(tmp_path):
    (tmp_path / "raw.jsonl").write_text(export() + "\n" + export()[:30] + "\n")
    rows, drops = quickstart.read_lines(tmp_path / "raw.jsonl")
    assert len(rows) == 1 and drops == {"not_json": 1}


def test_a_file_cut_off_in_its_last_line_is_an_error(tmp_path):
    (tmp_path / "raw.jsonl").write_text(export() + "\n" + export()[:30])
    with pytest.raises(ValueError, match=r"raw.jsonl: the last line has no end, the file is cut off"):
        quickstart.read_lines(tmp_path / "raw.jsonl")


@pytest.mark.parametrize("changes", [{"responses": {"A": {"text": "a", "finish_reason": "stop"}}}, {"annotation": {"choice": "C"}}])
def test_a_record_of_the_wrong_form_is_an_error_with_its_line(tmp_path, changes):
    (tmp_path / "raw.jsonl").write_text(export() + "\n" + export(**changes) + "\n")
    with pytest.raises(ValueError, match=r"raw.jsonl:2: "):
        quickstart.read_lines(tmp_path / "raw.jsonl")


def test_the_shipped_annotations_have_every_blemish_the_filter_is_for():
    from pathlib import Path

    rows, drops = quickstart.read_lines(Path("data/raw/quickstart/annotations.jsonl"))
    kept, taken = filter.clean(rows, 2)
    assert drops["not_json"] == 1 and len(kept) > 200
    assert taken["empty_turn"] >= 1 and taken["tie"] >= 1 and taken["duplicate"] >= 1 and taken["contradictory"] >= 2


def test_a_hub_row_whose_sides_answer_different_contexts_is_no_pair():
    same, other = user("q"), user("another")
    end = [{"role": "assistant", "content": "a"}]
    assert hub.to_row("s", 0, {"chosen": same + end, "rejected": other + end}) is None
    assert (hub.to_row("s", 0, {"chosen": same + end, "rejected": same + end}) or {})["prompt"] == same


def test_a_hub_pin_without_a_commit_is_refused(tmp_path):
    (tmp_path / "pin.json").write_text('{"dataset": "a/b", "split": "train", "revision": "main"}')
    with pytest.raises(ValueError, match="40-digit commit"):
        hub.read_pin(tmp_path / "pin.json")


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        (row(chosen=" "), "empty_turn"),
        (row(prompt=""), "empty_turn"),
        (row() | {"prompt": user("a") + user("b")}, "broken_alternation"),
        (row(chosen="x", rejected="x "), "identical_sides"),
        (row(tie=True), "tie"),
        (row() | {"strength": 1}, "small_margin"),
    ],
)
def test_each_rule_takes_its_row(bad, rule):
    kept, drops = filter.clean([bad, row(prompt="other")], 2)
    assert len(kept) == 1 and drops[rule] == 1 and drops.total() == 1


def test_of_a_contradiction_both_rows_go_and_of_a_duplicate_the_first_stays():
    rows = [row(), row(chosen="bad", rejected="good"), row(prompt="twice"), row(prompt="TWICE ")]
    kept, drops = filter.clean(rows, 1)
    assert kept == [rows[2]] and drops["contradictory"] == 2 and drops["duplicate"] == 1


texts = st.sampled_from(["a", "b", "A ", "", "c"])


@given(st.lists(st.builds(row, prompt=texts, chosen=texts, rejected=texts, tie=st.booleans()), max_size=20), st.floats(0.1, 0.9))
def test_filter_loses_no_row_and_no_prompt_is_on_both_sides(rows, share):
    kept, drops = filter.clean(rows, 1)
    assert len(rows) == len(kept) + drops.total()
    sides = {True: set(), False: set()}
    for r in kept:
        sides[filter.is_heldout(r["prompt"], share)].add(filter.prompt_key(r["prompt"]))
    assert not sides[True] & sides[False]


def test_prompts_come_once_and_none_that_the_preferences_hold():
    rows = [{"id": str(i), "prompt": user(t)} for i, t in enumerate(["one", "One ", "two", " ", "three"])]
    kept, drops = prompts.choose(rows, taken={prompts.prompt_key(user("two"))})
    assert {r["id"] for r in kept} == {"0", "4"} and drops == {"duplicate": 1, "in_preferences": 1, "not_a_prompt": 1}


def test_an_id_on_two_lines_is_an_error(tmp_path):
    line = json.dumps({"id": "x", "messages": user("q")})
    (tmp_path / "p.jsonl").write_text(f"{line}\n{line}\n")
    with pytest.raises(ValueError, match="id 'x' stands on several lines"):
        prompts.read(tmp_path / "p.jsonl")


@given(st.integers(0, 60), st.integers(1, 9))
def test_shards_hold_every_row_exactly_once(rows, shards):
    dealt = [[i for i in range(rows) if batch.shard_of(str(i), shards) == k] for k in range(shards)]
    assert sorted(i for part in dealt for i in part) == list(range(rows))


def test_iterations_share_no_prompt_and_a_pool_too_small_is_an_error():
    pool = [{"id": str(i)} for i in range(10)]
    assert not {r["id"] for r in batch.take(pool, 0, 5)} & {r["id"] for r in batch.take(pool, 1, 5)}
    with pytest.raises(ValueError, match=r"t1 wants prompts 6 to 12, the pool has 10"):
        batch.take(pool, 1, 6)


@pytest.mark.parametrize(
    ("keep", "off", "ids"), [("newest", False, ["n"]), ("all", False, ["b", "n"]), ("all", True, ["a", "b", "n"]), ("newest", True, ["a", "n"])]
)
def test_history_admits_what_the_params_say(keep, off, ids):
    before = [{"id": "a", "made_in": "offline"}, {"id": "b", "made_in": "t0"}]
    assert [r["id"] for r in history.admitted(before, [{"id": "n", "made_in": "t1"}], keep, off)] == ids


def test_the_offline_pairs_do_not_depend_on_the_order_of_the_file():
    rows = [row(id=str(i)) for i in range(20)]
    assert offline.choose(rows, 5) == offline.choose(rows[::-1], 5)
    assert len(offline.choose(rows, None)) == 20


def test_pairs_meet_their_reference_by_id_and_not_by_position():
    pairs = [{"id": "a", "made_in": "t0"}, {"id": "b", "made_in": "t0"}]
    reference = [{"id": i, "made_in": "t0", "ref_chosen_logps": v} for i, v in (("b", -2.0), ("a", -1.0))]
    assert [r["ref_chosen_logps"] for r in dpo.join(pairs, reference)] == [-1.0, -2.0]
    with pytest.raises(ValueError, match="1 pairs without"):
        dpo.join([*pairs, {"id": "c", "made_in": "t0"}], reference)


def test_public_parquet_is_what_datasets_reads_and_writes_are_the_same_bytes(tmp_path):
    import datasets

    (tmp_path / "raw.jsonl").write_text(export() + "\n")
    for name in ("one", "two"):
        quickstart.main(None, tmp_path / "raw.jsonl", preferences=tmp_path / f"{name}.parquet", metrics=tmp_path / "m.json")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    loaded = datasets.load_dataset("parquet", data_files=str(tmp_path / "one.parquet"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded[0]["chosen"] == pq.read_table(tmp_path / "one.parquet").to_pylist()[0]["chosen"]
