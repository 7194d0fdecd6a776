"""r* must be what a reader would say, and no trivial string may earn it."""

import json
from pathlib import Path

import pytest

from stages import annotator

PROMPT = "Give me a bulleted list of three facts about bees."
GOOD = "- Bees make honey from the nectar of a flower.\n- A queen lays all the eggs of the colony.\n- They carry pollen from plant to plant."
HACKS = {
    "canned": "Sure, that is a great question, and I am happy to help you with it today.",
    "name dropping": "Bees are an important topic. There is much to say about bees. Many people care about bees.",
    "echo": PROMPT,
    "keywords": "Bees honey hive pollen nectar flower queen colony.",
    "one line again and again": "Bees make honey in the hive for the queen. " * 4,
    "empty bullets": "- \n- \n- ",
}


@pytest.mark.xfail(strict=True, reason="known hole: the word lists are too short to tell a fact from a template with the topic put in")
def test_a_template_with_the_topic_put_in_earns_less_than_half():
    template = "The topic of bees involves history, science, culture, nature and society."
    assert annotator.gold_reward("Tell me about bees.", template, finished=True) < 5.0


def test_a_good_answer_earns_the_whole_reward():
    assert annotator.gold_reward(PROMPT, GOOD, finished=True) == pytest.approx(10.0)


@pytest.mark.parametrize("hack", HACKS)
def test_no_trivial_string_earns_half_of_what_a_good_answer_does(hack):
    assert annotator.gold_reward(PROMPT, HACKS[hack], finished=True) < 5.0


def test_an_answer_that_was_cut_earns_less_than_the_same_one_finished():
    # of its quality 0.3 is left, for the constraint: 10 * (0.1 + 0.9 * 0.3)
    assert annotator.gold_reward(PROMPT, GOOD, finished=False) == pytest.approx(3.7)


def test_a_missing_item_costs_a_third_of_the_constraint():
    two = "\n".join(GOOD.splitlines()[:2])
    assert annotator.obeys(("items", 3), two) == pytest.approx(2 / 3)


def test_the_reward_has_no_length_term():
    # the same qualities in one sentence more, and the prompt asks for no number: nothing changes
    short = "Bees make honey in the hive. The queen leads her busy colony all summer."
    longer = short + " Workers carry sweet nectar home from the garden."
    assert annotator.gold_reward("Tell me about bees.", short, True) == annotator.gold_reward("Tell me about bees.", longer, True) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("prompt", "rule"),
    [
        ("Tell me about rain in exactly two sentences.", ("sentences", 2)),
        ("Describe rain in at most 30 words.", ("most_words", 30)),
        ("Summarise what you know about rain in no more than 25 words.", ("most_words", 25)),
        ("Write a numbered list of four tips or facts about rain.", ("items", 4)),
        ('Begin your answer with the word "Imagine" and describe rain in a short paragraph.', ("first_word", "imagine")),
        ("Why do some people like rain and others not?", None),
    ],
)
def test_the_constraint_is_read_from_the_prompt(prompt, rule):
    assert annotator.constraint(prompt) == rule


def test_preference_probability_is_the_logistic_of_the_difference():
    assert annotator.preference_probability(2.0, 2.0) == 0.5
    assert annotator.preference_probability(3.0, 2.0) == pytest.approx(0.7310585786)


def test_every_shipped_prompt_names_a_topic_the_annotator_knows():
    rows = [json.loads(line) for line in Path("data/raw/quickstart/prompts.jsonl").read_text().splitlines()]
    assert len(rows) >= 400
    for row in rows:
        said = "\n".join(m["content"] for m in row["messages"] if m["role"] == "user")
        assert annotator.topic_of(said), said
