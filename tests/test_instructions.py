"""IFEval: answers whose instructions were followed, and not, by hand; without network, and the same every time."""

import subprocess
import sys
from pathlib import Path

import pytest

from stages.benchmarks import instructions, tasks
from stages.tools import benchmarks
from tests.test_benchmarks import entry, laid_out, passed

ROWS = [
    {"key": 1, "prompt": "Tell me of bees.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
    {
        "key": 2,
        "prompt": "List two fruits.",
        "instruction_id_list": ["detectable_format:number_bullet_lists", "keywords:existence"],
        "kwargs": [{"num_bullets": 2}, {"keywords": ["apple"]}],
    },
    {
        "key": 3,
        "prompt": "Speak of Mr. Smith.",
        "instruction_id_list": ["length_constraints:number_sentences"],
        "kwargs": [{"relation": "at least", "num_sentences": 3}],
    },
    {
        "key": 4,
        "prompt": "Answer in German.",
        "instruction_id_list": ["language:response_language"],
        "kwargs": [{"language": "de"}],
    },
]
NAMES = ["prompt_level_strict_acc", "inst_level_strict_acc", "prompt_level_loose_acc", "inst_level_loose_acc"]


@pytest.mark.parametrize(
    ("key", "answer", "scores"),
    [
        (1, "Bees make honey.", [1, 1, 1, 1]),
        (1, "Bees, of course, make honey.", [0, 0, 0, 0]),
        (1, "Sure, here it is.\nBees make honey.", [0, 0, 1, 1]),  # loosely the first line does not count
        (1, "", [0, 0, 0, 0]),
        (2, "* an apple\n* a pear", [1, 1, 1, 1]),
        (2, "* a plum\n* a pear", [0, 0.5, 0, 0.5]),
        (3, "Mr. Smith is old. He smiles.", [0, 0, 0, 0]),  # two sentences: the point of Mr. ends none
        (3, "Mr. Smith is old. He smiles. He sleeps.", [1, 1, 1, 1]),
        (4, "Die Bienen machen im Sommer sehr viel Honig.", [1, 1, 1, 1]),
        (4, "The bees make a lot of honey in summer.", [0, 0, 0, 0]),
    ],
)
def test_an_answer_has_the_scores_that_its_instructions_say(key, answer, scores):
    document = instructions.as_ifeval(ROWS[key - 1])
    assert instructions.followed(document, [answer]) == dict(zip(NAMES, scores, strict=True))


OBEYING = [
    "The moon goes around the earth.",
    "cats purr when they are glad.",
    "THE RAIN FALLS ON THE ROOF OF THE HOUSE AND THE CHILDREN SLEEP.",
    "* a towel\n* a hat\n* a ball",
    "<<the old dragon>>\nThere was a dragon.",
    "Mix flour, salt and water, and put it into the oven.",
    "It is deep and salty.",
    "A mountain that spits fire. It is hot.",
    "The horse runs. " * 20,
    "Trees are tall.",
    '"Come to my party on Friday."',
    "I like the book. See you soon!",
    "Dear teacher, thank you.\n\nP.S. I did my homework.",
    '{"tomatoes": 2}',
    "Here grow *red roses* and *white lilies*.",
    "Dear [name], I am [me] from number [house].",
    "Birds eat seeds. Most like seeds of grass.",
    "Snow falls.\n***\nIce grows.",
    "My answer is yes.",
    "What makes the sky red in the evening? Dust does.",
    "The sun is a star.",
    "a song is what the children sing when they are happy together.",
    "* sit\n* stay\n* come\n* rest",
    "Rivers flow. They bend. That is all.",
]


def test_the_questions_that_are_here_are_all_asked_and_can_be_answered_as_they_ask_and_otherwise():
    """Each by an answer that obeys; another fails them all but the ninth, which only wants many words."""
    tree = {"benchmarks": {}}
    benchmarks.those_here(tree)
    asked = tree["benchmarks"]["instructions"]
    questions = tasks.questions_of(asked["task"], Path(asked["raw"]))
    assert asked["questions"] == len(questions) and asked["chat"]
    for question, answer in zip(questions, OBEYING, strict=True):
        assert instructions.followed(question, [answer])["prompt_level_strict_acc"] == 1, question["prompt"]
        shouted = 'No, "Bad, BLUE water is Rain' + " and more. So it is." * 20
        assert instructions.followed(question, [shouted])["prompt_level_strict_acc"] == (question["key"] == 9)


def test_questions_go_through_ask_answer_and_grade(tiny_model, runtime, tmp_path):
    raw = laid_out(ROWS, tmp_path / "ifeval")
    facts = passed(tiny_model, raw, entry("ifeval", max_tokens=12), runtime, tmp_path)
    assert facts["questions"] == 4 and list(facts["scores"]) == NAMES
    assert all(0 <= value <= 1 for values in facts["scores"].values() for value in values)


def test_a_question_keeps_its_name_whatever_others_there_are(tmp_path):
    both = [tasks.built("ifeval", "", questions, [], 0).instances for questions in (known(ROWS), known(ROWS[:1]))]
    assert tasks.identity(both[0][0].doc) == tasks.identity(both[1][0].doc)


def known(rows: list[dict]) -> list[dict]:
    return [instructions.as_ifeval(row) for row in rows]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"instruction_id_list": ["punctuation:no_dots"]}, "instruction 'punctuation:no_dots' is none of IFEval's 25"),
        ({"kwargs": []}, r"1 instructions and kwargs for 0; each wants its own, \{\} where none"),
    ],
)
def test_a_row_that_cannot_be_graded_is_named_with_its_line(tmp_path, changes, told):
    raw = laid_out([ROWS[1], ROWS[0] | changes], tmp_path)
    with pytest.raises(ValueError, match=rf"questions.jsonl:2: {told}, as ifeval has it; mend the line"):
        tasks.questions_of("ifeval", raw)


GRADE = """
import socket, sys
socket.socket.connect = None  # whoever asks the network fails
from stages.benchmarks import instructions
print(instructions.followed({document!r}, ["kurz und knapp oui"]))
"""


def test_languages_are_told_without_chance_and_without_a_network():
    code = GRADE.format(document=instructions.as_ifeval(ROWS[3]))
    said = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(3)}
    assert len(said) == 1 and NAMES[0] in said.pop()
