"""The simulated annotator's gold reward r*(x, a); data/raw/quickstart/make_annotations.py draws the labels from it.

Source  RLHF Workflow (arXiv 2405.07863), Definitions 1 and 2: P(a1 preferred to a2 | x) = sigmoid(r*(x, a1) - r*(x,
        a2))

r* lies in [0, 10] and is a function of the prompt's text, the answer's text and whether the answer ended by itself. It
asks what a reader would ask, and has no term for length:
  finishes        it ended by itself, with a full stop or the like: an answer that breaks off is of little use
  obeys           it keeps the prompt's explicit constraint (a number of list items, of sentences, of words; a first
                  word), if there is one
Five factors multiply the weighted mean of these, so that an answer hopeless in one way earns little:
  on_topic        it names the topic and uses two words that belong to it (annotator_topics.json) and few that belong to
                  others; a tenth without any
  says            it says something: different words that are neither function words, nor the prompt's, nor such as fit
                  any answer
  form            its sentences and list items look like sentences: capital or bullet first, 3 to 35 words, some of them
                  function words
  fresh           it does not repeat its own three-word phrases
  own             it does not hand the prompt back
"""

import json
import re
from pathlib import Path

DATA_FILES = ["annotator_topics.json"]
TOPICS: dict[str, list[str]] = json.loads(Path(__file__).with_name(DATA_FILES[0]).read_text(encoding="utf-8"))
STEMS = {stem for own in TOPICS.values() for stem in own}
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
NUMBERS = {word: number for number, word in enumerate(DIGITS)}
NUMBER = r"(\d+|" + "|".join(NUMBERS) + ")"
# compiled once: evaluate's 1,000 prompts of three policies took 8.6 s when each call named its patterns, 3.2 s so
NAMED = {name: re.compile(rf"\b{re.escape(name)}\b") for name in TOPICS}
COUNTED = {
    "items": re.compile(rf"(?:list|bullets?|steps?) (?:of|with|in) (?:exactly )?{NUMBER}"),
    "sentences": re.compile(rf"in (?:exactly )?{NUMBER} sentences?"),
    "most_words": re.compile(rf"(?:at most|no more than) {NUMBER} words"),
}
FIRST_WORD = re.compile(r"(?:begin|start)(?: your answer)? with the word \"(\w+)\"")
FUNCTION_WORDS = set(  # words that carry no content
    """
    a an and are as at be been but by can do for from had has have he her his i if in is it its may more most my no not
    of on or our she so such than that the their them then there these they this to was we were what when where which
    while who will with you your
    """.split()
)
GENERIC_WORDS = set(  # words that fit any answer to anything
    """
    about also always answer care course everyone everything fact first get glad good great happy help hope idea
    important interesting know let like lot love made make makes many matter much need new often one people please
    question really right say see some something sure talk tell thank thing things think three time today topic two use
    used very want way well words world would
    """.split()
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
    text = prompt.lower()
    found = [name for name, pattern in NAMED.items() if pattern.search(text)]
    return max(found, key=len, default=None)


def stems_in(answer: str) -> set[str]:
    """The stems, of any topic, that the answer's words begin with; one of four letters or fewer takes a plural s only
    ("ash" is not "ashamed").
    """
    starts = {w[:k] for w in words(answer) for k in range(5, len(w) + 1)}
    short = {form for w in words(answer) for form in (w, w.removesuffix("s")) if len(form) < 5}
    return (starts | short) & STEMS


def on_topic(prompt: str, answer: str) -> float:
    """0.1, and 0.2 for naming the topic, 0.35 for each of two words that belong to it, less if most of its words
    belong to other topics.
    """
    topic, used = topic_of(prompt), stems_in(answer)
    if topic is None:  # not one of ours: the prompt's own words are the topic
        return 1.0 if set(words(answer)) & (set(words(prompt)) - FUNCTION_WORDS) else 0.1
    named = any(w.startswith(words(topic)[-1].rstrip("s")) for w in words(answer))
    own_stems = used & set(TOPICS[topic])
    focus = min(1.0, 3 * len(own_stems) / max(1, len(used)))
    return 0.1 + 0.2 * named + 0.35 * min(2, len(own_stems)) * focus


def says(prompt: str, answer: str) -> float:
    """1 with six different words of its own or more, or half of all its words; less in proportion."""
    empty = FUNCTION_WORDS | GENERIC_WORDS | set(words(prompt))
    own_words = {w for w in words(answer) if w not in empty and len(w) > 2}
    return min(1.0, len(own_words) / max(1.0, min(6.0, len(words(answer)) / 2)))


def well_formed(segment: str) -> bool:
    tokens = words(segment)
    share = sum(w in FUNCTION_WORDS for w in tokens) / len(tokens)
    letters = sum(c.isascii() and (c.isalpha() or c.isspace()) for c in segment) / len(segment)
    return (
        3 <= len(tokens) <= 35
        and 0.12 <= share <= 0.7
        and letters >= 0.8
        and (segment[0].isupper() or segment[0] in "\"'")
    )


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
    """What the prompt's last line demands: ("items", 3), ("sentences", 2), ("most_words", 25) or ("first_word",
    "imagine").
    """
    text = prompt.lower()
    for kind, pattern in COUNTED.items():
        if found := pattern.search(text):
            return kind, int(NUMBERS.get(found[1], found[1]))
    found = FIRST_WORD.search(text)
    return ("first_word", found[1]) if found else None


def obeys(rule: tuple[str, int | str], answer: str) -> float:
    """How far the answer keeps the constraint: 1 exactly, less by a third for each item or sentence off."""
    kind, wanted = rule
    if kind == "first_word":
        return float(words(answer)[:1] == [wanted])
    assert isinstance(wanted, int)
    if kind == "most_words":
        return min(1.0, max(0.0, 2 - len(words(answer)) / wanted))
    counted = (
        sum(bool(LIST_ITEM.match(line)) for line in answer.splitlines()) if kind == "items" else len(segments(answer))
    )
    return max(0.0, 1 - abs(counted - wanted) / 3)


def gold_reward(prompt: str, answer: str, finished: bool) -> float:
    """r*(x, a) in [0, 10]; `prompt` is what the users said, `finished` whether the answer ended by itself."""
    done, rule = float(ends(answer, finished)), constraint(prompt)
    quality = 0.7 * done + 0.3 * obeys(rule, answer) if rule else done
    factors = on_topic(prompt, answer) * says(prompt, answer) * (0.2 + 0.8 * form(answer))
    return 10 * factors * fresh(answer) * own(prompt, answer) * (0.1 + 0.9 * quality)


def gold(prompt: list[dict[str, str]], answer: str, finished: bool) -> float:
    """r* of an answer in a conversation; what its users said is the prompt."""
    return gold_reward("\n".join(m["content"] for m in prompt if m["role"] == "user"), answer, finished)
