"""r* must be what a reader would say, and no trivial string may earn it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stages.signals import annotator

PROMPT = "Give me a bulleted list of three facts about bees."
GOOD = (
    "- Bees make honey from the nectar of a flower.\n"
    "- A queen lays all the eggs of the colony.\n"
    "- They carry pollen from plant to plant."
)
HACKS = {
    "canned": "Sure, that is a great question, and I am happy to help you with it today.",
    "name dropping": "Bees are an important topic. There is much to say about bees. Many people care about bees.",
    "echo": PROMPT,
    "keywords": "Bees honey hive pollen nectar flower queen colony.",
    "one line again and again": "Bees make honey in the hive for the queen. " * 4,
    "empty bullets": "- \n- \n- ",
    "template with the topic put in": "The topic of bees involves history, science, culture, nature and society.",
    "a sentence for any topic": (
        "Water, energy, light and food matter to animals, plants, trees, the earth and the body."
    ),
}
PLAIN = "Tell me about {}."


def test_a_good_answer_earns_the_whole_reward():
    assert annotator.gold_reward(PROMPT, GOOD, finished=True) == pytest.approx(10.0)


@pytest.mark.parametrize("hack", HACKS)
def test_no_trivial_string_earns_half_of_what_a_good_answer_does(hack):
    assert annotator.gold_reward(PROMPT, HACKS[hack], finished=True) < 5.0
    assert annotator.gold_reward(PLAIN.format("bees"), HACKS[hack], finished=True) < 5.0


def mean_over_topics(answer: str) -> float:
    """Mean r* of one string, {} standing for the topic, given to the same plain question about every topic."""
    return sum(annotator.gold_reward(PLAIN.format(t), answer.format(t), True) for t in annotator.TOPICS) / len(
        annotator.TOPICS
    )


def commonest(number: int) -> str:
    """What an optimiser would find: the words that most topics count as theirs, in well-formed sentences."""
    stems = [stem for own in annotator.TOPICS.values() for stem in own]
    words = sorted(set(stems), key=lambda stem: (-stems.count(stem), stem))[:number]
    return (
        ". ".join(f"The {a} and the {b} are {c}" for a, b, c in zip(words[::3], words[1::3], words[2::3], strict=True))
        + "."
    )


@pytest.mark.parametrize(
    ("hack", "score"),
    [
        ("The {} and more. " + commonest(24), 4.43),
        ("The topic of {} involves history, science, culture, nature and society.", 3.83),
        (commonest(6), 2.88),
    ],
)
def test_the_three_best_hacks_earn_what_the_readme_of_the_raw_data_says(hack, score):
    assert mean_over_topics(hack) == pytest.approx(score, abs=0.005)


def test_an_answer_that_was_cut_earns_less_than_the_same_one_finished():
    # of its quality 0.3 is left, for the constraint: 10 * (0.1 + 0.9 * 0.3)
    assert annotator.gold_reward(PROMPT, GOOD, finished=False) == pytest.approx(3.7)


@pytest.mark.parametrize(
    ("answer", "credit"),
    [
        ("They sleep.", 0.1),
        ("Bees sleep.", 0.3),
        ("They make honey.", 0.45),
        ("Bees make honey.", 0.65),
        ("They make honey and wax.", 0.8),
        (GOOD, 1.0),
    ],
)
def test_on_topic_is_named_and_two_words_of_the_topic(answer, credit):
    assert annotator.on_topic(PROMPT, answer) == pytest.approx(credit)


def test_a_short_stem_takes_no_other_ending_than_a_plural_s():
    assert annotator.stems_in("Wings, honeyed.") >= {"wing", "honey"}
    assert "ash" not in annotator.stems_in("He felt ashamed.")


def test_words_of_other_topics_take_the_credit_away():
    assert annotator.on_topic(
        PROMPT, "Bees like honey, the chess pawn, the solar panel, a goalkeeper and a violin."
    ) < annotator.on_topic(PROMPT, "Bees like honey.")


def test_a_missing_item_costs_a_third_of_the_constraint():
    two = "\n".join(GOOD.splitlines()[:2])
    assert annotator.obeys(("items", 3), two) == pytest.approx(2 / 3)


def test_the_reward_has_no_length_term():
    # the same qualities in one sentence more, and the prompt asks for no number: nothing changes
    short = "Bees make honey in the hive. The queen leads her busy colony all summer."
    longer = short + " Workers carry sweet nectar home from the garden."
    assert (
        annotator.gold_reward("Tell me about bees.", short, True)
        == annotator.gold_reward("Tell me about bees.", longer, True)
        == pytest.approx(10.0)
    )


@pytest.mark.parametrize(
    ("prompt", "rule"),
    [
        ("Tell me about rain in exactly two sentences.", ("sentences", 2)),
        ("Describe rain in at most 30 words.", ("most_words", 30)),
        ("Summarise what you know about rain in no more than 25 words.", ("most_words", 25)),
        ("Write a numbered list of four tips or facts about rain.", ("items", 4)),
        (
            'Begin your answer with the word "Imagine" and describe rain in a short paragraph.',
            ("first_word", "imagine"),
        ),
        ("Why do some people like rain and others not?", None),
    ],
)
def test_the_constraint_is_read_from_the_prompt(prompt, rule):
    assert annotator.constraint(prompt) == rule


def test_every_shipped_prompt_names_a_topic_the_annotator_knows():
    rows = [
        json.loads(line)
        for name in ("prompts", "to_annotate")
        for line in Path(f"data/raw/quickstart/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(rows) >= 400 and len({str(row["messages"]) for row in rows}) == len(rows)
    for row in rows:
        said = "\n".join(m["content"] for m in row["messages"] if m["role"] == "user")
        assert annotator.topic_of(said), said


def test_the_shipped_prompts_are_what_their_command_writes(tmp_path):
    root = Path.cwd()
    (tmp_path / "data/raw/quickstart").mkdir(parents=True)
    (tmp_path / "stages").symlink_to(root / "stages")
    subprocess.run(
        [sys.executable, root / "data/raw/quickstart/make_prompts.py"], cwd=tmp_path, check=True, capture_output=True
    )
    for name in ("prompts.jsonl", "to_annotate.jsonl"):
        assert (tmp_path / "data/raw/quickstart" / name).read_bytes() == Path("data/raw/quickstart", name).read_bytes()
