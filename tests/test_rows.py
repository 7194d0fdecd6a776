"""Prompts, batches, history: rows in are rows out and drops by name, joined by id."""

import hashlib
import json
from types import SimpleNamespace

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.data import batch, prompts
from stages.pairs import history, offline, rank


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def test_prompts_come_once(tiny_model):
    rows = pl.DataFrame([{"id": str(i), "prompt": user(t)} for i, t in enumerate(["one", "One ", "two", " ", "three"])])
    kept, drops = prompts.choose(rows, tiny_model, 1000)
    assert set(kept["id"]) == {"0", "2", "4"} and drops == {"duplicate": 1, "empty_turn": 1}


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"id": 7, "messages": user("q")}, ("7", user("q"))),
        ({"context_messages": [*user("q"), *user("r")]}, ("p-0", [*user("q"), *user("r")])),
        ({"prompt": "q"}, ("p-0", user("q"))),
    ],
)  # fmt: skip
def test_prompts_come_in_three_forms(tmp_path, record, told):
    (tmp_path / "p.jsonl").write_text(json.dumps(record) + "\n{broken\n")
    rows, drops = prompts.read(tmp_path / "p.jsonl")
    assert rows.rows() == [told] and drops == {"not_json": 1}


def test_prompts_of_no_known_form_and_a_file_cut_off_are_errors(tmp_path):
    (tmp_path / "p.jsonl").write_text(json.dumps({"text": "q"}) + "\n")
    with pytest.raises(ValueError, match=r"fields \['text'\], none of them"):
        prompts.read(tmp_path / "p.jsonl")
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "q"}) + '\n{"prompt": "r')
    with pytest.raises(ValueError, match="cut off; copy it again"):
        prompts.read(tmp_path / "p.jsonl")


def test_an_id_of_two_prompts_is_an_error_and_a_row_that_is_repeated_whole_a_duplicate(tmp_path, tiny_model):
    lines = [json.dumps({"id": "x", "messages": user(text)}) for text in ("q", "q", "r")]
    (tmp_path / "p.jsonl").write_text("\n".join(lines[:2]) + "\n")
    rows, drops = prompts.choose(prompts.read(tmp_path / "p.jsonl")[0], tiny_model, 1000)
    assert rows["id"].to_list() == ["x"] and drops == {"duplicate": 1}
    (tmp_path / "p.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match="id 'x' stands for several prompts"):
        prompts.choose(prompts.read(tmp_path / "p.jsonl")[0], tiny_model, 1000)


@pytest.mark.parametrize(
    ("messages", "rule"),
    [
        ([{"role": None, "content": "hidden"}, *user("q")], "broken_alternation"),
        ([*user("q"), *user("r")], "broken_alternation"),
        ([*user("q"), {"role": "assistant", "content": None}, *user("r")], "empty_turn"),
        ([*user("a\0")], "nul_character"),
    ],
)
def test_a_prompt_that_is_no_conversation_is_dropped_by_name_and_is_not_taken_for_another(messages, rule, tiny_model):
    rows = pl.DataFrame(
        [{"id": "0", "prompt": messages}, {"id": "1", "prompt": user("q")}],
        schema_overrides={"prompt": pl.List(pl.Struct({"role": pl.String, "content": pl.String}))},
    )
    kept, drops = prompts.choose(rows, tiny_model, 1000)
    assert kept["id"].to_list() == ["1"] and drops == {rule: 1}


def test_prompts_of_several_forms_and_files_of_one_name_go_together(tmp_path):
    for folder, record in (
        ("a", {"prompt": "q"}),
        ("b", {"messages": [{"content": "r", "role": "user", "name": "x"}]}),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.jsonl").write_text(json.dumps(record) + "\n")
    rows, _ = prompts.read(tmp_path)
    assert rows.rows() == [("a/train-0", user("q")), ("b/train-0", user("r"))]


def dealt(tmp_path, iteration: str, rows: int, stop: bool = False) -> list[str]:
    """Ids of an iteration's prompts, of a pool of ten."""
    pl.DataFrame([{"id": str(i), "prompt": user(str(i))} for i in range(10)]).write_parquet(tmp_path / "pool.parquet")
    (tmp_path / "verdict.json").write_text(json.dumps({"stop": stop}))
    params = SimpleNamespace(prompts=SimpleNamespace(per_iteration=rows))
    reads = tmp_path / "pool.parquet", tmp_path / "verdict.json", iteration
    batch.main(params, *reads, prompts=tmp_path / "prompts.parquet")
    made = pl.read_parquet(tmp_path / "prompts.parquet")
    assert made.columns == ["id", "prompt"] and [row[0]["content"] for row in made["prompt"]] == list(made["id"])
    return list(made["id"])


@given(st.integers(0, 40), st.integers(1, 9))
def test_iterations_take_turns_at_the_pool_until_too_little_is_left(pool, rows):
    whole = pool // rows
    taken = [place for number in range(whole) for place in batch.take(pool, number, rows)]
    assert taken == list(range(whole * rows))
    with pytest.raises(ValueError, match=f"pi{whole} wants prompts {whole * rows} to .*, the pool has {pool}; lower"):
        batch.take(pool, whole, rows)


def test_an_iteration_is_dealt_its_own_prompts_in_the_pools_order_and_none_after_a_stop(tmp_path):
    assert dealt(tmp_path, "pi0", 4) == ["0", "1", "2", "3"] and dealt(tmp_path, "pi1", 4) == ["4", "5", "6", "7"]
    assert dealt(tmp_path, "pi1", 4, stop=True) == []
    with pytest.raises(ValueError, match=r"pi1 wants prompts 6 to 12, the pool has 10"):
        dealt(tmp_path, "pi1", 6)


@pytest.mark.parametrize(
    ("keep", "off", "ids"),
    [
        ("newest", False, ["n"]),
        ("all", False, ["b", "n"]),
        ("all", True, ["a", "b", "n"]),
        ("newest", True, ["a", "n"]),
    ],
)
def test_history_admits_what_the_params_say(keep, off, ids):
    before = [{"id": "a", "made_in": "offline"}, {"id": "b", "made_in": "pi0"}]
    assert [r["id"] for r in history.admitted(before, [{"id": "n", "made_in": "pi1"}], keep, off)] == ids


def test_pairs_of_another_iteration_or_of_other_prompts_are_refused():
    row = {"id": "a:1-2", "made_in": "pi1", "prompt": user("one")}
    history.check_prompts([row], [user("zero"), [{"content": "one", "role": "user"}]], "pi1")
    with pytest.raises(
        ValueError, match="pair a:1-2 was made in pi1, not in pi0; these are another iteration's pairs, run rank again"
    ):
        history.check_prompts([row], [user("one")], "pi0")
    with pytest.raises(
        ValueError, match="pair a:1-2 of pi1: its prompt is none of the 2 dealt; these are another run's pairs"
    ):
        history.check_prompts([row], [user("zero"), user("two")], "pi1")


def test_the_offline_pairs_do_not_depend_on_the_order_of_the_file():
    rows = [{"id": str(i)} for i in range(20)]
    assert offline.choose(rows, 5) == offline.choose(rows[::-1], 5)
    assert len(offline.choose(rows, None)) == 20


def test_fewer_raw_pairs_than_the_baseline_was_promised_are_an_error(tmp_path):
    pl.DataFrame({"id": list("abcde")}).write_parquet(tmp_path / "train.parquet")
    params = SimpleNamespace(offline=SimpleNamespace(pairs=6))
    with pytest.raises(ValueError, match=r"offline.pairs = 6, and \S+train.parquet has 5; lower it, set null for all"):
        offline.main(params, tmp_path / "train.parquet", pairs=tmp_path / "pairs.parquet")


def test_a_random_pair_is_drawn_by_the_number_of_the_iteration_and_says_which_policy_made_it():
    answer = {"id": "p", "prompt": user("q"), "temperature": 1.0, "finished": True}
    rewards = (3.0, 2.0, 1.0, 0.0)
    group = [answer | {"sample": k, "completion": f"a{k}", "reward": reward} for k, reward in enumerate(rewards)]
    for number in range(6):
        (pair,), _ = rank.rank({"p": group}, f"pi{number}", rank.Rules("best_random"), seed=1)
        drawn = hashlib.sha256(f"1:t{number}:p:rank".encode()).hexdigest()[:8]
        assert pair["rejected"][0]["content"] == f"a{1 + int(drawn, 16) % 3}" and pair["made_in"] == f"pi{number}"
