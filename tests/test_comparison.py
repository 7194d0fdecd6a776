"""Ranking by comparison: hand-worked standings, and what holds for any judge."""

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.signals import comparison, judge, pairwise


def candidates(*texts: str, prompt: str = "p") -> list[dict]:
    return [
        {"id": prompt, "sample": k, "prompt": [{"role": "user", "content": "q"}], "completion": text}
        for k, text in enumerate(texts)
    ]


def table(odds: Mapping[tuple[str, str], float | None]) -> comparison.Ask:
    """A judge who looks P(A) up by the two answers in the order shown."""
    return lambda questions: [odds[first, second] for _, _, first, second in questions]


def by_length(bias: float) -> comparison.Ask:
    """A judge who prefers the longer answer, and what is shown first by `bias` log-odds."""
    return lambda questions: [1 / (1 + math.exp(len(second) - len(first) - bias)) for _, _, first, second in questions]


def test_the_verdict_is_the_mean_of_both_orders_and_the_bias_what_the_order_changes():
    # a shown first wins with 0.9, shown second with 1 - 0.3 = 0.7: 0.8 in the mean, 0.2 of it the place
    asked = table({("a", "b"): 0.9, ("b", "a"): 0.3})
    first, second = comparison.rank(candidates("a", "b"), asked, "all_pairs")
    assert first.reward == pytest.approx(0.8) and second.reward == pytest.approx(0.2)
    assert first.position_bias == pytest.approx(0.2) and first.first_position == pytest.approx(0.6)


def test_a_tournament_puts_the_log_odds_against_the_champion_on_one_scale():
    # b beats a with 3:1, so it is champion; c beats b with 3:1 again: 0, log 3, 2 log 3
    odds = {("b", "a"): 0.75, ("a", "b"): 0.25, ("c", "b"): 0.75, ("b", "c"): 0.25}
    found = comparison.rank(candidates("a", "b", "c"), table(odds), "tournament")
    assert [s.reward for s in found] == pytest.approx([0.0, math.log(3), 2 * math.log(3)])
    assert [s.compared for s in found] == [0, 1, 1]


def test_a_win_rate_is_the_mean_over_all_opponents():
    odds = {("a", "b"): 1.0, ("b", "a"): 0.0, ("a", "c"): 0.5, ("c", "a"): 0.5, ("b", "c"): 1.0, ("c", "b"): 0.0}
    found = comparison.rank(candidates("a", "b", "c"), table(odds), "all_pairs")
    assert [s.reward for s in found] == pytest.approx([0.75, 0.5, 0.25])


@pytest.mark.parametrize(("ranking", "questions"), [("tournament", 2 * 7), ("all_pairs", 8 * 7)])
def test_the_cost_of_a_ranking_is_what_its_docstring_says(ranking, questions):
    asked = []
    judge = by_length(0.0)
    comparison.rank(candidates(*("x" * k for k in range(1, 9))), lambda q: asked.extend(q) or judge(q), ranking)
    assert len(asked) == questions


@given(
    st.lists(st.integers(1, 30), min_size=2, max_size=8, unique=True),
    st.floats(-3, 3),
    st.sampled_from(sorted(comparison.RANKINGS)),
)
def test_a_consistent_judge_finds_the_best_whatever_its_love_of_a_place(lengths, bias, ranking):
    found = comparison.rank(candidates(*("x" * n for n in lengths)), by_length(bias), ranking)
    rewards = [s.reward for s in found if s.reward is not None]
    assert len(rewards) == len(lengths) and lengths[rewards.index(max(rewards))] == max(lengths)


@given(st.permutations(range(6)))
def test_a_standing_belongs_to_its_row_and_not_to_its_place(order):
    rows = [row for name in "ab" for row in candidates("x", "xxx", "xx", prompt=name)]
    straight = comparison.rank(rows, by_length(0.5), "all_pairs")
    shuffled = comparison.rank([rows[k] for k in order], by_length(0.5), "all_pairs")
    assert [shuffled[order.index(k)].reward for k in range(6)] == pytest.approx([s.reward for s in straight])


@pytest.mark.parametrize("ranking", sorted(comparison.RANKINGS))
def test_a_comparison_without_a_verdict_is_counted_and_is_no_tie(ranking):
    odds = {(x, y): 0.6 for x in "abc" for y in "abc" if x != y} | {("c", "a"): None}
    found = comparison.rank(candidates("a", "b", "c"), table(odds), ranking)
    assert sum(s.unreadable for s in found) == (
        1 if ranking == "tournament" else 2
    )  # told of the challenger, or of both sides
    assert found[1].reward is not None


@pytest.mark.parametrize("ranking", sorted(comparison.RANKINGS))
def test_answers_that_nothing_could_be_said_of_have_no_reward(ranking):
    for texts in (("a",), ("a", "b")):
        assert [
            s.reward for s in comparison.rank(candidates(*texts), lambda questions: [None] * len(questions), ranking)
        ] == [None] * len(texts)
    assert comparison.rank([], lambda questions: [], ranking) == []


def test_a_question_shows_the_whole_conversation_and_both_answers_in_their_order():
    prompt = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    (message,) = pairwise.instruction(prompt, "first", "second")
    words = [
        "[CONTEXT]",
        "<turn> user\n one",
        "<turn> assistant\n two",
        "<turn> user\n three",
        "[RESPONSE A] first",
        "[RESPONSE B] second",
    ]
    places = [message["content"].index(word) for word in words]
    assert places == sorted(places)


def test_a_policys_answer_meets_pi0s_of_the_same_prompt_and_sample_in_both_orders():
    mine, pi0 = candidates("longer", "same", "a", "unread"), candidates("short", "same", "bb", "x")
    odds = {
        ("longer", "short"): 0.9,
        ("short", "longer"): 0.3,
        ("a", "bb"): 0.5,
        ("bb", "a"): 0.9,
        ("unread", "x"): None,
        ("x", "unread"): 0.5,
    }
    # (0.9 + 1 - 0.3) / 2; the same text, which nobody is asked about; (0.5 + 1 - 0.9) / 2; one order without a verdict
    answers = judge.beside(mine, pi0[::-1])
    assert judge.preferences(answers, table(odds)) == [pytest.approx(0.8), 0.5, pytest.approx(0.3), None]


def test_a_judge_who_says_nothing_and_a_prompt_that_pi0_was_not_asked_are_errors():
    asked = judge.beside(candidates("a", "same"), candidates("b", "same"))
    found = judge.preferences(asked, lambda questions: [None] * len(questions))
    assert found == [None, 0.5]
    with pytest.raises(ValueError, match="none of 1 verdicts could be read"):
        judge.check_read([row | {"judge_preference": value} for row, value in zip(asked, found, strict=True)])
    judge.check_read([asked[1] | {"judge_preference": 0.5}])  # nothing was asked
    with pytest.raises(ValueError, match="pi_0 has no answer to prompt q"):
        judge.beside(candidates("a", prompt="q"), candidates("b"))
