"""Ask a judge behind an OpenAI-compatible endpoint, and keep every answer that was paid for.

The ledger is judge/<served model>.jsonl in STAGE_HOME (else .scratch). Each line is one judgement: the endpoint and the
whole request, under their hash; the answer with the model's version and the tokens that were paid for, as the endpoint
tells them; and when. A run that died, or whose endpoint gave up half-way, asks only what is not there yet. The key
comes from the environment (JUDGE_API_KEY, or OPENAI_API_KEY).
"""

import hashlib
import json
import math
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

MOST_UNANSWERED = 0.02
"""Share of the questions that may stay without an answer, after all retries, before the stage gives up."""
MOST_UNREADABLE = 8
"""Answers in a row without a verdict, from the first on, before the stage gives up: a judge that does not answer in the
agreed form never will, and each answer is paid for.
"""
THOUGHT = "</think>"
"""What a judge that thinks aloud writes before its verdict."""
RETRIES, TIMEOUT = 4, 120.0
"""Of one request: the client waits longer each time, or as long as the endpoint says; seconds."""


class Served(NamedTuple):
    """A model behind an endpoint, and how it is asked; `limit_by` is the endpoint's word for the most tokens of an
    answer.
    """

    name: str
    top_logprobs: int
    max_tokens: int
    limit_by: str
    url: str
    connections: int


class BadResponse(Exception):
    """The endpoint answered, but not in the form that was agreed."""


def verdict(answer: dict) -> float | None:
    """P(A) from the log-probabilities of the verdict's token where they are there, else 1 or 0 from the text behind the
    thinking; None for an answer that is neither.
    """
    weights = {"A": 0.0, "B": 0.0}
    for token, logprob in answer["tokens"]:
        if token.strip() in weights:
            weights[token.strip()] += math.exp(logprob)
    if sum(weights.values()):
        return weights["A"] / sum(weights.values())
    # not the article: "A good answer ..."
    said = answer["text"].rpartition(THOUGHT)[2]
    found = re.match(r"\W*(?:answer |response )?([AB])(?:\W*$|\W+is\b)", said, re.IGNORECASE)
    return None if found is None else float(found[1].upper() == "A")


def simplified(response: Any) -> dict:
    """What counts of a response: the text, the likely tokens at the verdict's place, who spoke and how much was paid.

    Raises BadResponse for one that is no chat completion.
    """
    try:
        choice = response.choices[0]
        likely = at_the_verdict(choice.logprobs.content or []) if choice.logprobs else []
        said = {"text": choice.message.content or "", "tokens": [(t.token, t.logprob) for t in likely]}
        return said | {"by": response.model, "paid": response.usage.model_dump() if response.usage else None}
    except (AttributeError, IndexError, TypeError) as error:
        raise BadResponse(f"a response that is no chat completion: {str(response)[:80]!r}") from error


def at_the_verdict(tokens: list[Any]) -> list[Any]:
    """The likely tokens at the first place behind the thinking, or at the first of all, that is no white space."""
    ends = [place for place, token in enumerate(tokens) if THOUGHT in token.token]
    behind = tokens[ends[-1] + 1 if ends else 0 :]
    said = [token for token in behind if token.token.strip()] or behind
    return said[0].top_logprobs if said else []


def journal(served: Served) -> Path:
    """Where the answers of a model are kept."""
    home = Path(os.environ.get("STAGE_HOME", ".scratch"))
    return home / "judge" / f"{re.sub(r'[^A-Za-z0-9.-]', '_', served.name)}.jsonl"


def kept(path: Path) -> dict[str, dict]:
    """Answers by the hash of their request; a last line that was cut off by a kill is left out."""
    known = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
            known[entry["request"]] = entry["answer"]
        except (json.JSONDecodeError, KeyError):
            continue
    return known


def answered(body: dict, client: Any) -> dict:
    """One request. Raises ValueError at once where no retry can help, openai's own error where the retries were used
    up.
    """
    import openai

    final = openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError, openai.BadRequestError
    try:
        return simplified(client.chat.completions.create(**body))
    except final as error:
        told = f"{client.base_url} refuses the judge {body['model']}: {' '.join(str(error).split())[:200]}"
        raise ValueError(f"{told}; mend runtime.judge_url, judge.served or the key") from error


class Keeper:
    """Appends answers to the journal, from several threads, each on disk before the next question is asked."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
        self.file, self.lock = path.open("a", encoding="utf-8"), threading.Lock()
        self.file.write("" if whole else "\n")

    def keep(self, name: str, asked: dict, answer: dict) -> None:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        with self.lock:
            self.file.write(json.dumps({"request": name, "answer": answer, "asked": asked, "when": when}) + "\n")
            self.file.flush()
            os.fsync(self.file.fileno())


def request(served: Served, messages: list[dict[str, str]]) -> dict[str, Any]:
    """What is sent for one question."""
    logprobs = {"logprobs": True, "top_logprobs": served.top_logprobs} if served.top_logprobs else {}
    return {
        "model": served.name,
        "messages": messages,
        "temperature": 0.0,
        served.limit_by: served.max_tokens,
        "seed": 0,
    } | logprobs


def name_of(served: Served, body: dict[str, Any]) -> str:
    """What an answer is kept under: who was asked, and all that was sent."""
    asked = json.dumps([served.url.rstrip("/"), body], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()


def check_heard(heard: list[bool], last: dict | None) -> None:
    """Raise ValueError where nothing that was heard so far could be read."""
    if last and len(heard) >= MOST_UNREADABLE and not any(heard):
        told = f"none of the first {len(heard)} answers holds a verdict; the last is {last['text'][:80]!r}"
        raise ValueError(f"{told}; mend the judge's template, or raise its max_tokens where it thinks first")


Listen = Callable[[list[list[dict[str, str]]]], list[dict | None]]
"""Conversations to what was said at the end of each; None where the endpoint did not answer."""


def listener(served: Served, readable: Callable[[dict], bool]) -> Listen:
    """A function that asks the endpoint what the ledger does not hold.

    `readable` says whether an answer holds a verdict. Raises ValueError where too many stay unanswered, and where none
    of the first ones can be read.
    """
    import openai

    key = os.environ.get("JUDGE_API_KEY") or os.environ.get("OPENAI_API_KEY") or "none"
    client = openai.OpenAI(base_url=served.url, api_key=key, max_retries=RETRIES, timeout=TIMEOUT)
    path = journal(served)
    known, keeper = kept(path), Keeper(path)

    def listen(conversations: list[list[dict[str, str]]]) -> list[dict | None]:
        bodies = [request(served, messages) for messages in conversations]
        names = [name_of(served, body) for body in bodies]
        failures: list[str] = []
        heard: list[bool] = []
        missing = {name: body for name, body in zip(names, bodies, strict=True) if name not in known}

        def fetch(name: str) -> None:
            try:
                known[name] = answered(missing[name], client)
                keeper.keep(name, {"url": served.url} | missing[name], known[name])
                heard.append(readable(known[name]))
            except (openai.APIError, BadResponse, json.JSONDecodeError) as error:
                failures.append(f"{type(error).__name__}: {' '.join(str(error).split())[:120]}")
            if len(failures) > MOST_UNANSWERED * len(bodies):
                told = f"{len(failures)} of {len(bodies)} questions got no answer from {served.url} ({failures[-1]})"
                raise ValueError(f"{told}; {len(known)} answers are kept in {path}, run again to ask only the others")
            check_heard(heard, known.get(name))

        with ThreadPoolExecutor(served.connections) as pool:
            try:
                list(tqdm(pool.map(fetch, missing), total=len(missing), desc="judge", unit="question", leave=False))
            except ValueError:
                pool.shutdown(cancel_futures=True)
                raise
        return [known.get(name) for name in names]

    return listen


def asker(served: Served, render: Callable[[Any], str]) -> Callable[[list[Any]], list[float | None]]:
    """A function from questions to P(A); None where the answer is missing or could not be read."""
    listen = listener(served, lambda answer: verdict(answer) is not None)

    def ask(questions: list[Any]) -> list[float | None]:
        answers = listen([[{"role": "user", "content": render(question)}] for question in questions])
        return [None if answer is None else verdict(answer) for answer in answers]

    return ask
