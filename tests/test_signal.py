"""How far a signal can be trusted, in numbers worked by hand."""

import json
import math
from collections import Counter
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import shards
from stages.evaluation import (
    agreement,
    best_of_n,
    calibration,
    reward_bench,
    reward_bench_sections,
    signal,
    signal_report,
)
from stages.signals import pairs_as_candidates
from stages.signals.scorers import bag_of_words, ensemble, implicit

PROMPT = [{"role": "user", "content": "Tell me about bees."}]
GOOD, BAD = "Bees make honey in the hive. The queen leads the colony.", "bees bees bees"
PARAMS = SimpleNamespace(
    evaluate=SimpleNamespace(gold="quickstart", confidence=0.95, resamples=200),
    pairwise=SimpleNamespace(ranking="tournament"),
    implicit=SimpleNamespace(form="ratio"),
    seed=1,
)


def pair(chosen: float | None, rejected: float | None, **changes) -> dict:
    sides = {side: [{"role": "assistant", "content": text}] for side, text in (("chosen", GOOD), ("rejected", BAD))}
    ends = {"chosen_finished": True, "rejected_finished": True}
    return {
        "id": "1",
        "prompt": PROMPT,
        "source": "s",
        "subset": "s",
        "margin": 2.0,
        **sides,
        **ends,
        "reward": (chosen, rejected),
    } | changes


def test_accuracy_against_gold_follows_the_gold_order_even_where_the_label_is_wrong():
    right, flipped = pair(2.0, 1.0), pair(2.0, 1.0)
    flipped |= {
        "chosen": right["rejected"],
        "rejected": right["chosen"],
    }  # the label prefers the bad answer, and so does the signal
    facts = agreement.against_gold([right, flipped], 0.95)
    assert facts["gold"]["accuracy"] == 0.5 and facts["labels against gold"]["accuracy"] == 0.5


def test_a_tie_counts_half_and_an_interval_stays_between_0_and_1():
    assert [agreement.right(1.0, 1.0), agreement.right(2.0, 1.0), agreement.right(1.0, 2.0)] == [0.5, 1.0, 0.0]
    # Wilson's interval for 8 of 10: (0.8 + 1.96^2 / 20) / (1 + 1.96^2 / 10) = 0.7166, +- 0.2264
    assert agreement.accuracy([1.0] * 8 + [0.0] * 2, 0.95)["interval"] == pytest.approx([0.4902, 0.9433], abs=2e-4)
    assert agreement.accuracy([1.0] * 3, 0.95)["interval"][1] == pytest.approx(1.0)
    # a tie is half a hit: 1.5 of 2, (0.75 + 1.96^2 / 4) / (1 + 1.96^2 / 2) = 0.5856, +- 0.3877
    assert agreement.accuracy([1.0, 0.5], 0.95) == {"accuracy": 0.75, "interval": [0.1979, 0.9733], "pairs": 2}


def test_a_signal_that_is_sure_of_three_quarters_and_always_right_is_a_quarter_off():
    sure, wrong, torn = 0.75, 0.25, 0.5
    error = lambda *stated: calibration.error(calibration.reliability(list(stated)))  # noqa: E731
    assert error(sure) == pytest.approx(0.25)
    assert error(sure, torn) == pytest.approx(0.125)  # a tie is half right and half sure
    assert error(sure, sure, sure, wrong) == pytest.approx(0)


def test_what_a_reward_states_depends_on_the_signal():
    row = pair(math.log(3), 0.0)
    assert calibration.probability(row, "reward_model", PARAMS) == pytest.approx(0.75)
    assert calibration.probability(row, "longer", PARAMS) is None
    sums = SimpleNamespace(pairwise=PARAMS.pairwise, implicit=SimpleNamespace(form="sum"))
    assert calibration.probability(row, "implicit", sums) is None
    wins = SimpleNamespace(pairwise=SimpleNamespace(ranking="all_pairs"), implicit=PARAMS.implicit)
    assert calibration.probability(pair(0.8, 0.2), "judge", wins) == 0.8


def test_pairs_are_told_apart_by_source_margin_and_length():
    rows = [pair(1.0, 0.0), pair(0.0, 1.0, source="t", margin=3.0), pair(1.0, 0.0, source="t", margin=None)]
    names = {name: len(part) for name, part in agreement.parts(rows).items()}
    extra = len(GOOD) - len(BAD)
    assert names == {"source s": 1, "source t": 2, "margin 2": 1, "margin 3": 1, f"chosen longer by {extra}": 3}
    assert "source s" not in agreement.parts(rows[:1])


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=50))
def test_every_value_falls_in_exactly_one_range(values):
    bins = agreement.binned(values)
    assert len(bins) <= 4 and all(sum(low <= value <= high for low, high in bins) == 1 for value in values)


def test_a_pair_that_was_never_scored_is_an_error_and_one_without_a_verdict_a_count():
    scored = [{"id": "1", "sample": 0, "reward": 1.0}, {"id": "1", "sample": 1, "reward": None}]
    assert signal.with_rewards([pair(0, 0)], scored) == ([], 1)
    with pytest.raises(ValueError, match=r"2 pairs, 2 scored sides, 1 pairs without \(\['2'\]\); score them again"):
        signal.with_rewards([pair(0, 0), pair(0, 0, id="2")], scored)


def test_the_correlation_with_length_is_pearsons_by_prompt():
    rows = [
        {"id": name, "reward": r, "tokens": t}
        for name, r, t in [("a", 1, 10), ("a", 2, 20), ("a", 3, 30), ("b", 1, 5), ("b", 1, 9), ("c", None, 3)]
    ]
    assert signal.length_bias(rows) == [
        {"correlation": 1.0, "mean_tokens": 20.0}
    ]  # b's rewards do not vary, c has none


def test_sections_weigh_their_subsets_as_rewardbench_does():
    # math-prm 0.5 with weight 984, two of code 1.0 with 164 each: (492 + 328) / 1312 = 0.625; the sizes 447, 10, 10 do
    # not matter
    found = reward_bench_sections.scores(
        {"math-prm": (0.5, 447), "hep-cpp": (1.0, 10), "hep-go": (1.0, 10), "mine": (0.25, 4)}
    )
    assert found["reasoning"] == {"score": 0.625, "pairs": 467, "subsets": 3, "of": 7}
    assert found["other"] == {"score": 0.25, "pairs": 4, "subsets": 1, "of": 1} and "chat" not in found


def test_the_table_of_weights_is_rewardbenchs():
    assert (
        reward_bench_sections.SECTIONS["safety"]["xstest-should-refuse"] == 154
        and reward_bench_sections.SECTIONS["safety"]["xstest-should-respond"] == 250
    )
    assert {name: sum(weights.values()) for name, weights in reward_bench_sections.SECTIONS.items()} == {
        "chat": 358,
        "chat_hard": 456,
        "safety": 740,
        "reasoning": 1968,
    }
    # code and mathematics weigh the same
    assert (
        reward_bench_sections.SECTIONS["reasoning"]["math-prm"]
        == 984
        == sum(n for s, n in reward_bench_sections.SECTIONS["reasoning"].items() if s.startswith("hep-"))
    )


def test_the_best_of_n_is_the_mean_over_all_subsets():
    rng = np.random.default_rng(0)
    rewards, worth = rng.integers(0, 4, 6).astype(float), rng.random(6)
    shared = np.array([worth[rewards == r].mean() for r in rewards])
    for n in (1, 2, 3, 6):
        brute = np.mean([shared[max(subset, key=lambda i: rewards[i])] for subset in combinations(range(6), n)])
        assert best_of_n.best_of(rewards, worth, n) == pytest.approx(brute)


def test_the_sizes_double_and_end_with_all_and_the_bound_is_log_n_less_n_minus_1_over_n():
    assert best_of_n.sizes(1) == [1] and best_of_n.sizes(6) == [1, 2, 4, 6] and best_of_n.sizes(8) == [1, 2, 4, 8]
    point = best_of_n.curve({"a": np.array([1.0, 2.0])}, {"a": np.array([5.0, 7.0])}, PARAMS)[-1]
    assert point["kl"] == pytest.approx(math.log(2) - 0.5, abs=1e-4) and point["mean"] == 7.0


def test_a_judge_is_the_yardstick_where_there_is_no_gold(tmp_path):
    """Two shards of one answer each: the longer prefers the second, which the judge gives 1, to the first, with 3."""
    rows = [{"id": "a", "sample": k, "prompt": PROMPT, "completion": "x", "finished": True} for k in (0, 1)]
    folders = [tmp_path / name / "pi0" for name in ("longer", "judge")]
    for folder, rewards in zip(folders, ([0.0, 1.0], [3.0, 1.0]), strict=True):
        folder.mkdir(parents=True)
        for k, reward in enumerate(rewards):
            pq.write_table(pa.Table.from_pylist([rows[k] | {"reward": reward}]), folder / f"shard-{k}.parquet")
    params = SimpleNamespace(seed=1, evaluate=SimpleNamespace(gold="none", resamples=10, confidence=0.9))
    best_of_n.main(params, folders, curves=tmp_path / "c.json")
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["yardstick"] == "judge" and [p["mean"] for p in found["signals"]["longer"]] == [2.0, 1.0]
    assert [p["mean"] for p in found["signals"]["judge itself"]] == [2.0, 3.0]


def test_an_answer_without_a_reward_counts_as_worse_than_all_others():
    rows = [{"id": "a", "sample": k, "reward": reward} for k, reward in enumerate([2.0, None, -1.0])]
    assert best_of_n.rewards_of(rows)["a"].tolist() == [2.0, -2.0, -1.0]


def read(tmp_path: Path, files: dict[str, list[dict]]) -> tuple[list[dict], dict]:
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, rows in files.items():
        (raw / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    reward_bench.main(None, raw, pairs=tmp_path / "p.parquet", account=tmp_path / "a.json")
    return pq.read_table(tmp_path / "p.parquet").to_pylist(), json.loads((tmp_path / "a.json").read_text())


def test_rewardbench_is_read_by_subset_and_every_row_is_accounted_for(tmp_path):
    bench = [
        {"id": 1, "prompt": "q", "chosen": "c", "rejected": "r", "subset": "math-prm"},
        {"id": 2, "prompt": "q", "chosen": "", "rejected": "r", "subset": "x"},
    ]
    mine = [{"prompt": "q", "response_a": "a", "response_b": "b", "preference": word} for word in ("B", "tie", "C")]
    rows, account = read(tmp_path, {"bench.jsonl": bench, "mine.jsonl": mine})
    assert [(row["subset"], row["chosen"][0]["content"]) for row in rows] == [("math-prm", "c"), ("mine", "b")]
    assert (
        account["rows_in"] == 5
        and account["rows_out"] == 2
        and account["drops"] == {"empty_turn": 1, "tie": 1, "label_out_of_range": 1}
    )


def test_an_empty_folder_leaves_rewardbench_empty_and_rows_that_are_no_pairs_do_not(tmp_path):
    rows, account = read(tmp_path, {"README.md": []})
    assert rows == [] and account["rows_in"] == 0
    (tmp_path / "raw/x.jsonl").write_text('{"prompt": "q", "chosen": "", "rejected": "r"}\n')
    with pytest.raises(ValueError, match=r"no pair, drops \{'empty_turn': 1\}; are these judged pairs"):
        reward_bench.main(None, tmp_path / "raw", pairs=tmp_path / "p.parquet", account=tmp_path / "a.json")


def test_every_pair_is_judged_on_both_sides_once(tmp_path):
    rows = [{k: v for k, v in pair(0, 0, id=name).items() if k != "reward"} for name in "ab"]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "heldout.parquet")
    pq.write_table(pa.Table.from_pylist(rows[:1]), tmp_path / "bench.parquet")
    sides, heldout, bench, choices = (
        tmp_path / f"{name}" for name in ("sides", "heldout.parquet", "bench.parquet", "none")
    )
    pq.write_table(pa.Table.from_pylist([]), choices)
    pairs_as_candidates.main(None, heldout, bench, choices, candidates=sides)
    for part, names in (("heldout", "ab"), ("reward_bench", "a")):
        made = pq.read_table(sides / f"{part}.parquet").to_pylist()
        found = Counter((row["id"], row["sample"], row["completion"]) for row in made)
        assert found == Counter((name, k, text) for name in names for k, text in enumerate((GOOD, BAD)))


def test_members_are_put_on_one_scale_before_the_rule(tmp_path):
    # means over the prompt: 2 and 10; centred: (-1, 1) and (1, -1) for the second, (0, 0) spread apart
    centred = [
        ensemble.centred([{"id": "p", "sample": k, "reward": r} for k, r in enumerate(rewards)])
        for rewards in ([1.0, 3.0], [11.0, 9.0])
    ]
    assert centred == [{("p", 0): -1.0, ("p", 1): 1.0}, {("p", 0): 1.0, ("p", 1): -1.0}]
    assert [ensemble.combined([1.0, 3.0], rule, 0.5) for rule in ("mean", "worst", "penalised")] == [2.0, 1.0, 1.5]


def test_an_ensemble_refuses_members_that_scored_other_candidates(tmp_path):
    for name, sample in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        table = pa.Table.from_pylist([{"id": "p", "sample": sample, "reward": 1.0}])
        pq.write_table(table, tmp_path / name / "shard-0.parquet")
    params = SimpleNamespace(ensemble=SimpleNamespace(rule="mean", penalty=0.0))
    told = r"b/shard-0\.parquet scores other candidates than .*a/shard-0\.parquet"
    with pytest.raises(ValueError, match=told):
        ensemble.main(params, [tmp_path / "a", tmp_path / "b"], scores=tmp_path / "s")


def test_an_ensemble_has_the_members_shards_and_their_spread(tmp_path):
    rewards = {"a": [1.0, 3.0], "b": [9.0, 11.0], "c": [13.0, 11.0]}  # centred: -1 and 1, twice; 1 and -1
    for name, values in rewards.items():
        (tmp_path / name).mkdir()
        for shard in ("x", "y"):
            rows = [{"id": f"p{shard}", "sample": k, "reward": value} for k, value in enumerate(values)]
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / name / f"{shard}.parquet")
    params = SimpleNamespace(ensemble=SimpleNamespace(rule="worst", penalty=0.0))
    ensemble.main(params, [tmp_path / name for name in rewards], scores=tmp_path / "s")
    assert [file.name for file in shards.files(tmp_path / "s")] == ["x.parquet", "y.parquet"]
    made = shards.read(tmp_path / "s")
    assert [(row["id"], row["reward"]) for row in made] == [("px", -1), ("px", -1), ("py", -1), ("py", -1)]
    # of (-1, -1, 1): mean -1/3, squared distances 4/9, 4/9 and 16/9, their mean 8/9
    assert [row["spread"] for row in made] == pytest.approx([math.sqrt(8 / 9)] * 4)


def test_the_implicit_reward_is_beta_times_the_log_ratio_or_the_log_probability_alone():
    assert implicit.implied(-10.0, -14.0, 5, "ratio", 0.1) == pytest.approx(0.4)
    assert implicit.implied(-10.0, 0.0, 5, "sum", 0.1) == -10.0
    assert [implicit.implied(policy, 0.0, n, "average", 0.1) for policy, n in ((-10.0, 5), (-3.0, 0))] == [-2.0, -3.0]


def test_a_bag_of_words_learns_which_words_win():
    said = lambda text: [{"role": "assistant", "content": text}]  # noqa: E731
    pairs = [{"chosen": said("Bees make honey"), "rejected": said("Bees sting")}] * 5
    counter, weights = bag_of_words.fitted(pairs)
    good, bad, both = bag_of_words.features(counter, ["honey unheard", "sting", "bees"]) @ weights
    assert good > 0 > bad and both == 0  # a word on both sides decides nothing
    # make, honey and -sting weigh w, so the pair's difference is x = 3 w log 2; log(1 + e^-x) + 0.01 / 2 * 3 w^2 is
    # least where log 2 / (1 + e^x) = 0.01 w
    weight = good / math.log(2)
    assert bad == pytest.approx(-good, rel=1e-3)
    assert math.log(2) / (1 + math.exp(3 * good)) == pytest.approx(0.01 * weight, rel=1e-3)


def test_the_table_has_the_papers_rows_where_there_are_its_columns_and_no_column_that_is_empty():
    labels = agreement.accuracy([1.0, 1.0, 0.0, 0.0], 0.95)
    plain = {"heldout": {"labels": labels}, "length": {"correlation": None}}
    bench = {
        "reward_bench": {
            "sections": reward_bench_sections.scores({"math-prm": (0.5, 4), "hep-go": (1.0, 4)}),
            "subsets": {},
        }
    }
    best = {
        "yardstick": "judge",
        "signals": {name: [{"n": 1, "mean": 0.5}, {"n": 4, "mean": 1.5}] for name in ("longer", "reward_model")},
    }
    header, lines = signal_report.signals_table({"longer": plain, "reward_model": plain}, best, 0.95)
    assert header == ["signal", "labels [95 %]", "judge of the best of 4"]
    assert lines == [[name, "50.0 [15, 85]", "1.50"] for name in ("longer", "reward model")]
    header, lines = signal_report.signals_table({"longer": plain, "reward_model": plain | bench}, best, 0.95)
    assert header[1] == "reasoning" and lines[0][1] == "" and lines[1][1] == "57.1 (2 of 7)"  # (984 * 0.5 + 164) / 1148
    assert lines[-1] == ["preference model (mix2), the paper's", "94.7", "", ""]
