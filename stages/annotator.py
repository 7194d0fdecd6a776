"""The simulated annotator: a known gold reward r*(x, a), and the labels it would give.

Source  RLHF Workflow (arXiv 2405.07863), Definitions 1 and 2: P(a1 preferred to a2 | x) = sigmoid(r*(x, a1) - r*(x, a2))

r* lies in [0, 6] and is a function of the prompt's text, the answer's text and whether the answer ended by itself. It asks what a
reader would ask, and has no term for length:
  addresses   the answer names the topic and uses words that belong to it (annotator_topics.json), not just any fluent words
  form        its sentences and list items look like sentences: capital or bullet first, 3 to 35 words, some of them function words
  finishes    it ended by itself, with a full stop or the like
  fresh       it does not repeat its own three-word phrases
  own         it does not hand the prompt back
  obeys       it keeps the prompt's explicit constraint (a number of list items, of sentences, of words; a first word), if there is one
`fresh`, `own` and `form` multiply the rest, so that an answer strong in one way and hopeless in another earns little.
"""

import json
import math
import re
from pathlib import Path

DATA_FILES = ["annotator_topics.json"]
TOPICS: dict[str, list[str]] = json.loads(Path(__file__).with_name(DATA_FILES[0]).read_text())
NUMBERS = {w: i for i, w in enumerate("zero one two three four five six seven eight nine ten".split())}
FUNCTION_WORDS = set(
    "a an and are as at be been but by can do for from had has have he her his i if in is it its may more most my no not of on or our she so "
    "such than that the their them then there these they this to was we were what when where which while who will with you your".split()
)
LIST_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def segments(text: str) -> list[str]:
    """Sentences and list items, in order, empty ones left out."""
    parts = [s for line in text.splitlines() for s in re.split(r"(?<=[.!?])\s+", LIST_ITEM.sub("", line).strip())]
    return [part for part in parts if words(part)]


def trigrams(tokens: list[str]) -> list[tuple[str, ...]]:
    return list(zip(tokens, tokens[1:], tokens[2:], strict=False))


def topic_of(prompt: str) -> str | None:
    """The topic a prompt names; the longest name where several fit ("the ocean" before "cat")."""
    found = [name for name in TOPICS if re.search(rf"\b{re.escape(name)}\b", prompt.lower())]
    return max(found, key=len, default=None)


def addresses(prompt: str, answer: str) -> float:
    """1 when the answer uses three or more different words that belong to the topic; its name alone earns a quarter."""
    topic = topic_of(prompt)
    if topic is None:
        content = {w for w in words(prompt) if w not in FUNCTION_WORDS}
        return min(1.0, len(content & set(words(answer))) / 3)
    said = words(answer)
    own_words = {stem for stem in TOPICS[topic] if any(w.startswith(stem) for w in said)}
    name = words(topic)[-1].rstrip("s")
    return 0.25 * any(w.startswith(name) for w in said) + 0.75 * min(1.0, len(own_words) / 3)


def well_formed(segment: str) -> bool:
    tokens = words(segment)
    share = sum(w in FUNCTION_WORDS for w in tokens) / len(tokens)
    letters = sum(c.isascii() and (c.isalpha() or c.isspace()) for c in segment) / len(segment)
    return 3 <= len(tokens) <= 35 and 0.12 <= share <= 0.7 and letters >= 0.8 and (segment[0].isupper() or segment[0] in "\"'")


def form(answer: str) -> float:
    parts = segments(answer)
    return sum(map(well_formed, parts)) / len(parts) if parts else 0.0


def ends(answer: str, finished: bool) -> bool:
    return finished and answer.rstrip().endswith((".", "!", "?", '"', ")"))


def fresh(answer: str) -> float:
    """1 when at most a tenth of the answer's three-word phrases repeat an earlier one, 0 when half do."""
    grams = trigrams(words(answer))
    repeated = 1 - len(set(grams)) / len(grams) if grams else 1.0
    return min(1.0, max(0.0, (0.5 - repeated) / 0.4))


def own(prompt: str, answer: str) -> float:
    """1 when at most a quarter of the answer's three-word phrases stand in the prompt, 0 when two thirds do."""
    grams, given = trigrams(words(answer)), set(trigrams(words(prompt)))
    copied = sum(g in given for g in grams) / len(grams) if grams else 1.0
    return min(1.0, max(0.0, (2 / 3 - copied) / (2 / 3 - 1 / 4)))


def constraint(prompt: str) -> tuple[str, int | str] | None:
    """What the prompt's last line demands: ("items", 3), ("sentences", 2), ("most_words", 25) or ("first_word", "imagine")."""
    text = prompt.lower()
    number = r"(\d+|" + "|".join(NUMBERS) + ")"
    for kind, pattern in (
        ("items", rf"(?:list|bullets?|steps?) (?:of|with|in) (?:exactly )?{number}"),
        ("sentences", rf"in (?:exactly )?{number} sentences?"),
        ("most_words", rf"(?:at most|no more than) {number} words"),
    ):
        if found := re.search(pattern, text):
            return kind, int(NUMBERS.get(found[1], found[1]))
    found = re.search(r"(?:begin|start)(?: your answer)? with the word \"(\w+)\"", text)
    return ("first_word", found[1]) if found else None


def obeys(rule: tuple[str, int | str], answer: str) -> float:
    """How far the answer keeps the constraint: 1 exactly, less by a third for each item or sentence off."""
    kind, wanted = rule
    if kind == "first_word":
        return float(words(answer)[:1] == [wanted])
    assert isinstance(wanted, int)
    if kind == "most_words":
        return min(1.0, max(0.0, 2 - len(words(answer)) / wanted))
    counted = sum(bool(LIST_ITEM.match(line)) for line in answer.splitlines()) if kind == "items" else len(segments(answer))
    return max(0.0, 1 - abs(counted - wanted) / 3)


def gold_reward(prompt: str, answer: str, finished: bool) -> float:
    """r*(x, a) in [0, 6]; `prompt` is the last user message with the words before it, `finished` whether the answer ended by itself."""
    rule, done = constraint(prompt), ends(answer, finished)
    met = 0.35 + 0.25 * done + 0.4 * obeys(rule, answer) if rule else 0.6 + 0.4 * done
    return 6 * fresh(answer) * own(prompt, answer) * form(answer) * (0.15 + 0.85 * addresses(prompt, answer)) * met


def preference_probability(gold_a: float, gold_b: float) -> float:
    """P(a preferred to b) = sigmoid(r*(a) - r*(b)), Definition 1."""
    return 1 / (1 + math.exp(gold_b - gold_a))
