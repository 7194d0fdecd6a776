import json
import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.pairs import rank

RULES = rank.Rules()


def candidate(sample: int, reward: float | None, text: str = "", finished: bool = True, prompt: str = "p") -> dict:
    words = text or f"answer {sample}"
    base = {"id": prompt, "prompt": [{"role": "user", "content": prompt}], "temperature": 1.0}
    return {**base, "sample": sample, "completion": words, "finished": finished, "reward": reward}


def found(group: list[dict], **rules: Any) -> tuple[dict, dict, float]:
    """The pair that is known to be there."""
    (pair,) = rank.outcomes(group, RULES._replace(**rules))
    assert not isinstance(pair, str), pair
    return pair


def test_best_against_worst_with_the_margin_between_them():
    best, worst, margin = found([candidate(0, 2.0), candidate(1, -1.0), candidate(2, 0.5)])
    assert (best["sample"], worst["sample"], margin) == (0, 1, 3.0)


def test_the_penalised_reward_picks_and_labels_the_pair():
    # 1.0 - 0.001 * 2000 = -1.0 against 0.9 - 0.001 * 100 = 0.8: the short answer wins although its raw reward is lower
    group = [candidate(0, 1.0, "x" * 2000), candidate(1, 0.9, "y" * 100)]
    best, worst, margin = found(group, length_penalty=0.001)
    assert (best["sample"], worst["sample"]) == (1, 0) and margin == pytest.approx(1.8)


def test_a_candidate_that_the_scorer_could_not_judge_is_in_no_pair():
    group = [candidate(0, 2.0) | {"reward": None}, candidate(1, -1.0), candidate(2, 0.5)]
    best, worst, _ = found(group, length_penalty=0.001)
    assert (best["sample"], worst["sample"]) == (2, 1)
    assert rank.outcomes([row | {"reward": None} for row in group], RULES) == ["too_few_usable"]
    assert rank.by_prompt(group, 3)["p"][0]["reward"] is None


def test_equal_texts_are_dropped_even_where_their_rewards_differ():
    assert rank.outcomes([candidate(0, 1.0, "same"), candidate(1, 0.9, "same ")], RULES) == ["identical_texts"]


def test_equal_rewards_are_dropped_by_name_and_leaving_nothing_is_an_error():
    groups = rank.by_prompt([candidate(0, 1.0), candidate(1, 1.0)], n=2)
    with pytest.raises(ValueError, match=r"1 prompts, no pair.*'tie': 1.*are all rewards equal"):
        rank.rank(groups, "t0", RULES)


def test_a_reward_that_is_no_number_is_an_error_that_names_the_row():
    with pytest.raises(ValueError, match="prompt p sample 1: reward is nan"):
        rank.by_prompt([candidate(0, 1.0), candidate(1, math.nan)], n=2)


def test_a_prompt_without_its_n_samples_is_an_error():
    with pytest.raises(ValueError, match=r"samples \[0, 1\], generate.n = 8"):
        rank.by_prompt([candidate(0, 1.0), candidate(1, 2.0)], n=8)


def test_an_empty_completion_is_never_chosen_nor_rejected():
    best, worst, _ = found([candidate(0, 9.0, " "), candidate(1, 1.0), candidate(2, 0.0)])
    assert (best["sample"], worst["sample"]) == (1, 2)


@pytest.mark.parametrize(("truncated", "chosen", "rejected"), [("keep", 0, 2), ("rejected_only", 1, 2), ("drop", 1, 3)])
def test_truncated_completions_follow_the_rule(truncated, chosen, rejected):
    group = [candidate(0, 3.0, finished=False), candidate(1, 2.0), candidate(2, 0.0, finished=False), candidate(3, 1.0)]
    best, worst, _ = found(group, truncated=truncated)
    assert (best["sample"], worst["sample"]) == (chosen, rejected)


@given(
    st.lists(
        st.lists(st.tuples(st.floats(-9, 9), st.sampled_from("abc "), st.booleans()), min_size=3, max_size=3),
        min_size=1,
        max_size=8,
    )
)
def test_every_prompt_becomes_its_best_against_its_worst_or_one_named_drop(prompts):
    rows = [
        candidate(k, r, t, f, prompt=f"p{i}") for i, group in enumerate(prompts) for k, (r, t, f) in enumerate(group)
    ]
    wanted = {f"p{i}": pair for i, group in enumerate(prompts) if (pair := first_extremes(group))}
    groups = rank.by_prompt(rows[::-1], n=3)
    if not wanted:
        with pytest.raises(ValueError, match=rf"{len(prompts)} prompts, no pair"):
            rank.rank(groups, "t0", RULES)
        return
    pairs, drops = rank.rank(groups, "t0", RULES)
    text = lambda row, side: row[side][0]["content"]  # noqa: E731
    made = {text(row, "prompt"): (text(row, "chosen"), text(row, "rejected"), row["margin"]) for row in pairs}
    assert made == wanted
    assert len(pairs) + drops.total() == len(prompts)


def first_extremes(group: list[tuple[float, str, bool]]) -> tuple[str, str, float] | None:
    """The first text of the highest reward, the first of the lowest and the margin, where they make a pair."""
    usable = [(reward, text) for reward, text, _ in group if text.strip()]
    if len(usable) < 2:
        return None
    high, low = max(reward for reward, _ in usable), min(reward for reward, _ in usable)
    chosen, rejected = (next(text for reward, text in usable if reward == extreme) for extreme in (high, low))
    return (chosen, rejected, high - low) if high > low and chosen != rejected else None


def samples(group: list[dict], draw: int = 0, **rules: Any) -> list:
    """(chosen, rejected) by sample, or the drop."""
    return [
        o if isinstance(o, str) else (o[0]["sample"], o[1]["sample"])
        for o in rank.outcomes(group, RULES._replace(**rules), draw)
    ]


def test_each_strategy_pairs_as_its_name_says():
    group = [candidate(0, 1.0), candidate(1, 4.0), candidate(2, 2.0), candidate(3, 3.0)]
    assert samples(group, pairing="best_worst") == [(1, 0)]
    assert samples(group, pairing="best_second") == [(1, 3)]
    assert [samples(group, draw, pairing="best_random") for draw in (0, 1, 2)] == [[(1, 0)], [(1, 2)], [(1, 3)]]
    assert samples(group, pairing="all_pairs") == [(1, 3), (1, 2), (1, 0), (3, 2), (3, 0), (2, 0)]
    assert samples(group, pairing="all_pairs", min_margin=1.5) == [
        "below_margin",
        (1, 2),
        (1, 0),
        "below_margin",
        (3, 0),
        "below_margin",
    ]
    assert samples(group, pairing="top_bottom", top_k=2) == [(1, 0), (3, 2)]


def test_a_pair_that_is_dropped_is_counted_under_what_is_wrong_with_it():
    group = [candidate(0, 2.0, "same"), candidate(1, 2.0, "same "), candidate(2, 2.0, "other"), candidate(3, 1.7)]
    drops = samples(group, pairing="all_pairs", min_margin=0.5)
    assert drops == ["identical_texts", "tie", "below_margin", "tie", "below_margin", "below_margin"]


def test_the_best_that_may_be_chosen_meets_only_answers_below_it():
    group = [candidate(0, 4.0, finished=False), candidate(1, 3.0), candidate(2, 2.0)]
    for pairing in ("best_worst", "best_second", "best_random", "top_bottom"):
        assert {tuple(samples(group, draw, pairing=pairing, truncated="rejected_only")) for draw in range(3)} == {
            ((1, 2),)
        }, pairing
        assert samples(group[:2], pairing=pairing, truncated="rejected_only") == ["truncated_winner"], pairing


def test_the_top_and_the_bottom_never_overlap():
    group = [candidate(k, float(k)) for k in range(4)]
    assert samples(group, pairing="top_bottom", top_k=3) == [(3, 0), (2, 1)]


def test_a_better_answer_that_was_cut_off_is_a_named_drop_where_it_may_only_be_rejected():
    group = [candidate(0, 1.0), candidate(1, 4.0, finished=False), candidate(2, 2.0)]
    assert samples(group, pairing="all_pairs", truncated="rejected_only") == [
        "truncated_winner",
        "truncated_winner",
        (2, 0),
    ]


def test_a_cut_off_answer_among_the_top_costs_a_pair_by_name():
    rules = {"pairing": "top_bottom", "top_k": 2, "truncated": "rejected_only"}
    cut = lambda k, reward: candidate(k, reward, finished=False)  # noqa: E731
    assert samples([cut(0, 4.0), cut(1, 3.0), candidate(2, 2.0), candidate(3, 1.0)], **rules) == [
        (2, 3),
        "truncated_winner",
    ]
    assert samples([cut(0, 4.0), candidate(1, 3.0), cut(2, 2.0), cut(3, 1.0)], **rules) == [(1, 3), "truncated_winner"]
    assert samples([cut(0, 4.0), cut(1, 3.0), cut(2, 2.0), candidate(3, 1.0)], **rules) == [
        "truncated_winner",
        "truncated_winner",
    ]


def looked_at(group: list[dict], rules: rank.Rules) -> int:
    """How many pairs the strategy must account for: one of most, every two usable ones, or so many of the top and of
    the bottom.
    """
    usable = [row for row in group if not rank.left_out(row, rules.truncated)]
    if len(usable) < 2 or not any(row["finished"] or rules.truncated == "keep" for row in usable):
        return 1
    return {"all_pairs": math.comb(len(usable), 2), "top_bottom": min(rules.top_k, len(usable) // 2)}.get(
        rules.pairing, 1
    )


def margins(group: list[dict], rules: rank.Rules) -> list[float]:
    """Of the pairs that a strategy's name stands for, in ascending order; of best_random all that it may draw."""
    usable = [row for row in group if not rank.left_out(row, rules.truncated)]
    winners = [row for row in usable if row["finished"] or rules.truncated == "keep"]
    rewards, best = (sorted(row["reward"] for row in rows) for rows in (usable, winners))
    if len(usable) < 2 or not winners:
        return []
    below = [reward for reward in rewards if reward <= best[-1]][:-1]
    owner = lambda row: row["sample"] < rules.own  # noqa: E731
    return sorted(
        {
            "best_worst": [best[-1] - reward for reward in below[:1]],
            "best_second": [best[-1] - reward for reward in below[-1:]],
            "best_random": [best[-1] - reward for reward in below],
            "all_pairs": [a - b for a in best for b in rewards],
            "top_bottom": [
                a - b for a, b in zip(best[::-1], rewards[: len(rewards) // 2][: rules.top_k], strict=False)
            ],
            "across": sorted(a["reward"] - b["reward"] for a in winners for b in usable if owner(a) != owner(b))[-1:],
        }[rules.pairing]
    )


rewards = st.sampled_from([0.0, 1.0, 2.0, 3.0, 5.0, 9.0, None])
fourfold = st.lists(st.tuples(rewards, st.sampled_from("abcdefgh "), st.booleans()), min_size=4, max_size=4)


@pytest.mark.parametrize("pairing", ["best_worst", "best_second", "best_random", "all_pairs", "top_bottom", "across"])
@given(st.lists(fourfold, min_size=1), st.sampled_from(["keep", "drop", "rejected_only"]), st.integers(1, 4))
def test_whatever_the_strategy_its_pairs_are_the_extremes_it_is_named_after_and_the_others_are_dropped_by_name(
    pairing, prompts, truncated, top_k
):
    rows = [
        candidate(k, r, t, f, prompt=f"p{i}") for i, group in enumerate(prompts) for k, (r, t, f) in enumerate(group)
    ]
    rules = rank.Rules(pairing, top_k, 0.0, 0.0, truncated, own=2)
    groups = rank.by_prompt(rows, n=4)
    looked = {name: margins(group, rules) for name, group in groups.items()}
    over_zero = {name: [margin for margin in found if margin > 0] for name, found in looked.items()}
    distinct = {name for name, group in groups.items() if len({row["completion"] for row in group}) == 4}
    if pairing == "best_random":  # a draw among them, so it is known only where none of them would be dropped
        due = {name: 1 for name in distinct if looked[name] and looked[name] == over_zero[name]}
    else:
        due = {name: len(over_zero[name]) for name in distinct}
    try:
        pairs, drops = rank.rank(groups, "t0", rules, seed=1)
    except ValueError as error:
        assert "no pair" in str(error) and not any(due.values())
        return
    made: dict[str, list[float]] = {name: [] for name in groups}
    for row in pairs:
        assert row["margin"] > 0 and row["chosen"] != row["rejected"]
        assert row["chosen_finished"] or truncated == "keep"
        made[row["prompt"][0]["content"]].append(row["margin"])
    assert not any(Counter(made[name]) - Counter(over_zero[name]) for name in groups)
    assert {name: len(made[name]) for name in due} == due
    assert len(pairs) + drops.total() == sum(looked_at(group, rules) for group in groups.values())
    assert len({row["id"] for row in pairs}) == len(pairs)
    assert pairs == rank.rank(rank.by_prompt(rows[::-1], n=4), "t0", rules, seed=1)[0]


def test_the_account_counts_the_pairs_that_were_looked_at(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [candidate(k, float(k % 3), prompt=name) for name in "ab" for k in range(4)]
    (tmp_path / "s").mkdir()
    for k in range(2):
        pq.write_table(pa.Table.from_pylist(rows[4 * k : 4 * k + 4]), tmp_path / f"s/shard-{k}.parquet")
    section = SimpleNamespace(pairing="all_pairs", top_k=1, length_penalty=0.0, min_margin=0.0, truncated="keep")
    params = SimpleNamespace(rank=section, generate=SimpleNamespace(n=4, from_rival=0), seed=1)
    rank.main(params, tmp_path / "s", "pi0", pairs=tmp_path / "p.parquet", metrics=tmp_path / "m.json")
    facts = json.loads((tmp_path / "m.json").read_text())
    # rewards 0, 1, 2, 0: of 6 pairs one ties
    assert (facts["prompts"], facts["rows_in"], facts["rows_out"], facts["drops"]["tie"]) == (2, 12, 10, 2)
    assert facts["left_out"] == {"unscored": 0, "empty": 0, "truncated": 0}
    assert pq.read_table(tmp_path / "p.parquet").num_rows == 10


def test_across_pairs_one_completion_of_the_policy_with_one_of_its_rival_at_the_widest_margin():
    group = [
        candidate(0, 3.0),
        candidate(1, 0.0),
        candidate(2, 2.5),
        candidate(3, 0.5),
    ]  # the first two are the policy's
    best, worst, margin = found(group, pairing="across", own=2)
    assert (best["sample"], worst["sample"], margin) == (
        0,
        3,
        2.5,
    )  # not 0 against 1, which is wider, nor 2 against 1, which is as wide
    best, worst, _ = found([candidate(0, 1.0), candidate(1, 1.5), candidate(2, 4.0)], pairing="across", own=2)
    assert (best["sample"], worst["sample"]) == (2, 0)


def test_across_without_a_usable_completion_of_the_rival_is_a_drop_by_name():
    assert rank.outcomes(
        [candidate(0, 3.0), candidate(1, 0.0), candidate(2, 2.5, " ")], RULES._replace(pairing="across", own=2)
    ) == ["too_few_usable"]


def test_after_a_stop_there_are_no_prompts_and_no_pairs_and_that_is_no_error():
    assert rank.rank({}, "t1", RULES) == ([], dict.fromkeys(rank.DROPS, 0)) and rank.audit([]) == {}


def test_the_histogram_counts_every_pair_in_ten_steps_of_its_margin():
    rows, _ = rank.rank(
        rank.by_prompt(
            [
                candidate(k, r, prompt=p)
                for p, m in (("a", 1.0), ("b", 2.0), ("c", 11.0))
                for k, r in enumerate((m, 0.0))
            ],
            2,
        ),
        "t0",
        RULES,
    )
    assert rank.audit(rows)["margin_histogram"] == [1, 1, 0, 0, 0, 0, 0, 0, 0, 1]


def test_candidates_that_may_stand_in_no_pair_are_counted_by_the_first_reason():
    rows = [
        candidate(0, None, " "),
        candidate(1, 1.0, " ", finished=False),
        candidate(2, 1.0, finished=False),
        candidate(3, 0.0),
    ]
    assert [rank.left_out(row, "drop") for row in rows] == ["unscored", "empty", "truncated", ""]
    assert [rank.left_out(row, "rejected_only") for row in rows] == ["unscored", "empty", "", ""]
