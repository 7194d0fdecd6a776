"""Write prompts.jsonl and to_annotate.jsonl: varied requests over the annotator's topics, a few of them multi-turn.

Run     python data/raw/quickstart/make_prompts.py   (from the repository's root; the same files every time)
Writes  one JSON object a line: id, messages (a list of {role, content}; the last is the user's)
"""

import json
import random
from pathlib import Path

KINDS = [  # each asks for something that fits in about fifty words; a third carry a constraint that can be checked
    "Explain to a child why {t} matter.|Explain to a child why {t} matters.",
    "Tell me about {t} in exactly two sentences.",
    "Give me a bulleted list of three facts about {t}.",
    "What should a beginner know about {t}? Answer briefly.",
    "Describe {t} in at most 30 words.",
    'Begin your answer with the word "Imagine" and describe {t} in a short paragraph.',
    "Write a short, friendly message to a friend about {t}.",
    "Write a numbered list of four tips or facts about {t}.",
    "What is the most surprising thing about {t}, and why?",
    "Tell a very short story that involves {t}.",
    "In one sentence, say what {t} means to people.",
    "I am writing a school essay. Give me a good opening paragraph about {t}.",
    "What are common mistakes or misunderstandings about {t}?",
    "Compare {t} today with a hundred years ago in three sentences.",
    "Give a bulleted list with exactly four words or phrases people connect with {t}, each explained briefly.",
    "Why do some people like {t} and others not?",
    "Summarise what you know about {t} in no more than 25 words.",
    "Suggest a question a curious person may ask about {t}, then answer it.",
]
FOLLOW_UPS = [
    "Thanks. Now put that as a bulleted list of three points.",
    "Can you say that more simply, in two sentences?",
]
PER_TOPIC = 7
ANNOTATED, SEED = 170, 2405
WORDS = json.loads(Path("stages/signals/annotator_topics.json").read_text(encoding="utf-8"))  # of each topic
TOPICS = list(WORDS)


def phrase(kind: str, topic: str) -> str:
    plural, _, singular = kind.partition("|")
    return (singular if singular and not topic.endswith("s") else plural).format(t=topic)


def single(topic_index: int, k: int) -> list[dict]:
    """The k-th request of a topic: kinds are dealt in turn, so that neighbours differ and every kind meets many
    topics.
    """
    kind = KINDS[(topic_index * PER_TOPIC + k) % len(KINDS)]
    return [{"role": "user", "content": phrase(kind, TOPICS[topic_index])}]


def multi(topic_index: int) -> list[dict]:
    topic = TOPICS[topic_index]
    first = ", ".join(WORDS[topic][:3])
    return [
        {"role": "user", "content": f"What comes to mind when you think of {topic}?"},
        {"role": "assistant", "content": f"When I think of {topic}, I think of things like {first}."},
        {"role": "user", "content": f"{FOLLOW_UPS[topic_index % 2]} Stay with {topic}."},
    ]


def main() -> None:
    rows = [(f"{i:02d}-{k}", single(i, k)) for i in range(len(TOPICS)) for k in range(PER_TOPIC)]
    rows += [(f"{i:02d}-m", multi(i)) for i in range(0, len(TOPICS), 3)]
    records = [{"id": f"qs-{name}", "messages": messages} for name, messages in sorted(rows)]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    annotated = random.Random(SEED).sample(lines, ANNOTATED)
    others = [line for line in lines if line not in set(annotated)]
    for file, part in (("to_annotate.jsonl", annotated), ("prompts.jsonl", others)):
        Path("data/raw/quickstart", file).write_text("\n".join(part) + "\n", encoding="utf-8")
    told = f"{len(lines)} prompts over {len(TOPICS)} topics and {len(KINDS)} kinds"
    print(f"make_prompts: {told}, {ANNOTATED} of them to annotate")


if __name__ == "__main__":
    main()
