"""RewardBench 2: its form, and what a signal's rewards are worth, by hand."""

import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.evaluation import best_answer, reward_bench_2, signal
from stages.signals import pairs_as_candidates
from tests.test_benchmarks import laid_out

ROWS = [
    {"id": "1", "prompt": "Why?", "chosen": ["good"], "rejected": ["bad", "worse", "worst"], "subset": "Focus"},
    {"id": "2", "prompt": " ", "chosen": ["good"], "rejected": ["bad"], "subset": "Focus"},
    {"id": "3", "prompt": "Why?", "chosen": [], "rejected": ["bad"], "subset": "Math"},
    {"id": "4", "prompt": "Why?", "chosen": ["good"], "rejected": [], "subset": "Math"},
    {"id": "5", "prompt": "Why?", "chosen": ["good"], "rejected": [""], "subset": "Math"},
    {"id": "1", "prompt": "Who?", "chosen": ["good"], "rejected": ["bad"], "subset": "Math"},
    {"id": "ref:7", "prompt": "A colour", "chosen": ["red"], "rejected": ["stone"], "subset": "Ties"},
]


def brought(rows: list[dict], folder) -> tuple[list[dict], dict]:
    raw = laid_out(rows, folder / "raw", "test")
    reward_bench_2.main(None, raw, choices=folder / "c.parquet", account=folder / "a.json")
    return pq.read_table(folder / "c.parquet").to_pylist(), json.loads((folder / "a.json").read_text(encoding="utf-8"))


def test_rows_without_right_or_wrong_answers_are_dropped_by_name(tmp_path):
    rows, account = brought(ROWS, tmp_path)
    drops = {"no_prompt": 1, "no_right_answer": 1, "no_wrong_answer": 1, "empty_answer": 1, "id_twice": 1}
    assert account == {"rows_in": 7, "rows_out": 2, "drops": drops, "subsets": {"Focus": 1, "Ties": 1}}
    assert rows[0]["answers"] == ["good", "bad", "worse", "worst"] and rows[0]["right"] == 1
    assert rows[0]["prompt"] == [{"role": "user", "content": "Why?"}]


def test_an_empty_folder_is_no_shard_for_anybody_to_score(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/README.md").write_text("Put it here.", encoding="utf-8")
    reward_bench_2.main(None, tmp_path / "raw", choices=tmp_path / "c.parquet", account=tmp_path / "a.json")
    schema = pa.schema([("id", pa.string())])
    pq.write_table(schema.empty_table(), tmp_path / "none.parquet")
    none = tmp_path / "none.parquet"
    pairs_as_candidates.main(None, none, none, tmp_path / "c.parquet", candidates=tmp_path / "candidates")
    assert sorted(file.name for file in (tmp_path / "candidates").iterdir()) == [
        "heldout.parquet",
        "reward_bench.parquet",
    ]


def test_every_answer_is_a_candidate_and_none_may_be_missing(tmp_path):
    rows, _ = brought(ROWS, tmp_path)
    asked = pairs_as_candidates.answers(tmp_path / "c.parquet")
    assert [(row["id"], row["sample"], row["completion"]) for row in asked[-2:]] == [
        ("ref:7", 0, "red"),
        ("ref:7", 1, "stone"),
    ]
    scored = [row | {"reward": float(-row["sample"])} for row in asked]
    found, unscored = signal.with_answers(rows, scored)
    assert found[0]["rewards"] == [0.0, -1.0, -2.0, -3.0] and unscored == 0
    with pytest.raises(ValueError, match=r"2 choices have 6 answers, 5 are scored; score them again"):
        signal.with_answers(rows, scored[:-1])
    scored[0] |= {"reward": None}
    assert signal.with_answers(rows, scored)[1] == 1


def row(rewards: Sequence[float], right: int = 1, subset: str = "Focus", name: str = "1") -> dict:
    return {"id": name, "subset": subset, "rewards": rewards, "right": right}


def test_a_first_place_that_is_shared_counts_by_share():
    assert [best_answer.first_place(row(r)) for r in ([3, 1, 2, 0], [1, 3, 2, 0], [3, 3, 2, 3], [1, 1, 1, 1])] == [
        1.0,
        0.0,
        pytest.approx(1 / 3),
        0.25,
    ]


def test_the_subset_ties_is_accuracy_and_margins_by_hand():
    """Two prompts. 1: right among themselves 1 apart, 3 above the wrong ones; alone 2 above. 2: right 4 apart, 1 above;
    alone wrong.
    """
    rows = [
        row([5.0, 4.0, 1.0], 2, "Ties", "tied:1"),
        row([5.0, 3.0], 1, "Ties", "ref:1"),
        row([9.0, 5.0, 4.0], 2, "Ties", "tied:2"),
        row([1.0, 2.0], 1, "Ties", "ref:2"),
        row([1.0, 0.0], 1, "Ties", "ref:3"),  # alone: counts for accuracy only
    ]
    # tied right 2 of 2, ref 2 of 3; above > between for 1 alone; the least of above, 2 and -1, > between for 1 alone;
    # tanh(2/1 - 1) = 0.761594, tanh(-1/4 - 1) = -0.848284
    wanted = 0.3 * 1 + 0.3 * 2 / 3 + 0.2 * 0.5 + 0.2 * 0.5 + 0.01 * (0.761594 - 0.848284) / 2
    assert best_answer.ties(rows) == pytest.approx(wanted, abs=1e-6)
    assert best_answer.ties(rows[-1:]) is None


def test_the_score_is_the_mean_of_the_subsets():
    rows = [row([3, 1]), row([1, 3], name="2"), row([3, 1], subset="Math", name="3")]
    found = best_answer.scores(rows, 0.95)
    assert found["score"] == 0.75 and found["subsets"]["Focus"]["accuracy"] == 0.5 and "ties" not in found
    assert found["subsets"]["Math"]["interval"] == [0.2065, 1.0]  # Wilson, 1 of 1: 1 / (1 + z^2)
