"""Ask the referee about a policy's answers to a chat benchmark, in that benchmark's way.

Reads   asked: rows of stages/benchmarks/chats/questions.py; answers: rows of stages/benchmarks/chats/turns.py; model:
        the referee, where it runs here; words: its question, in Jinja
Writes  verdicts: id, place, said (what the judge wrote, as it is), p_first (P(the answer shown first is better), where
        the judge weighs two letters), by (the model that spoke, as the endpoint names it), unasked (why there is none)
Params  referee.served, the model's name at the endpoint runtime.judge_url, null for the model in this folder;
        referee.max_tokens, referee.top_logprobs, referee.limit_by; generate.thinking; dtype, seed

        alpaca_eval   place 0: the policy's answer and the baseline's, which first is drawn from the question's name;
                      words of prompt, response_a, response_b; a letter
        arena_hard    places 0 and 1: both orders, the policy's first and second; [[A>>B]] to [[B>>A]]
        mt_bench      a place for each turn; words of shown, the turns so far as {question, answer, reference}; [[1]] to
                      [[10]]

Source  Li et al. 2023 (AlpacaEval), weighted; Zheng et al. 2023, arXiv 2306.05685, single answers; Li et al. 2024,
        arXiv 2406.11939, both orders. The words in data/raw/referee are our own: numbers compare with each other, not
        with a leaderboard's, unless its words are put there
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stages import chat, rows
from stages.benchmarks import engines
from stages.benchmarks.chats import joined
from stages.sampling import engine
from stages.signals import batching, comparison, endpoint, judging

COLUMNS = pa.schema([("said", pa.string()), ("p_first", pa.float64()), ("by", pa.string()), ("unasked", pa.string())])
SCHEMA = pa.schema([("id", pa.string()), ("place", pa.int32()), *COLUMNS])
NOTHING = dict.fromkeys(COLUMNS.names)
BRACKETS = re.compile(r"\[[^\[\]]+\]")
CHUNK = 256
TOO_LONG = "over the judge's context"


def two(row: dict, first: bool) -> dict[str, Any]:
    """What the words of a comparison show."""
    shown = row["completions"][0], row["baseline"]
    response_a, response_b = shown if first else shown[::-1]
    prompt = [{"role": "user", "content": row["turns"][0]}]
    return {"prompt": prompt, "response_a": response_a, "response_b": response_b}


def so_far(row: dict, turn: int) -> dict[str, Any]:
    """What the words of a rating show: the turns up to this one."""
    references = row["references"] or [""] * len(row["turns"])
    shown = zip(row["turns"], row["completions"], references, strict=True)
    fields = ("question", "answer", "reference")
    return {"shown": [dict(zip(fields, turn, strict=True)) for turn in shown][: turn + 1]}


SHOWS: dict[str, Callable[[dict], list[dict]]] = {
    "alpaca_eval": lambda row: [two(row, joined.policy_first(row["id"]))],
    "arena_hard": lambda row: [two(row, True), two(row, False)],
    "mt_bench": lambda row: [so_far(row, turn) for turn in range(len(row["turns"]))],
}
"""What the judge is shown of a question, by place."""


def template(words: Path, shown: dict[str, Any]) -> Callable[[dict], str]:
    """A function that puts what is shown into words. Raises ValueError where they cannot show this."""
    try:
        text = words.read_text(encoding="utf-8")
        made = ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(text)
        made.render(**shown)
    except TemplateError as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{words}: {told}; it may use {', '.join(shown)}") from error
    return lambda values: made.render(**values)


def laid_out(questions: list[dict], words: Path) -> list[dict]:
    """A row for each thing that the judge is asked: id, place, text. Raises ValueError for words that cannot show."""
    shown = [(row["id"], place, values) for row in questions for place, values in enumerate(SHOWS[row["task"]](row))]
    render = template(words, shown[0][2])
    return [{"id": name, "place": place, "text": render(values)} for name, place, values in shown]


@dataclass(frozen=True)
class Served:
    """A worker: the judge behind an endpoint. It is asked all at once, and its ledger keeps every answer."""

    served: endpoint.Served
    letters: bool
    columns: ClassVar[pa.Schema] = COLUMNS

    def load(self) -> rows.Work:
        listen = endpoint.listener(self.served, self.readable)

        def judge(asked: list[dict], tick: rows.Tick) -> list[dict]:
            heard = listen([[{"role": "user", "content": row["text"]}] for row in asked])
            return [row | self.told(answer) for row, answer in zip(asked, heard, strict=True)]

        return judge

    def readable(self, answer: dict) -> bool:
        if self.letters:
            return endpoint.verdict(answer) is not None
        return BRACKETS.search(answer["text"]) is not None

    def told(self, answer: dict | None) -> dict[str, Any]:
        if answer is None:
            return NOTHING | {"unasked": "no answer from the endpoint"}
        found = endpoint.verdict(answer) if self.letters else None
        return NOTHING | {"said": answer["text"], "p_first": found, "by": answer.get("by")}


@dataclass(frozen=True)
class Writes:
    """A worker: a judge here that writes its verdict; a question over its context is not asked."""

    sampler: engine.Sampler
    columns: ClassVar[pa.Schema] = COLUMNS

    def load(self) -> rows.Work:
        write, tokenizer = self.sampler.load(), chat.load_tokenizer(self.sampler.model)
        room = self.sampler.longest - self.sampler.max_new_tokens

        def judge(asked: list[dict], tick: rows.Tick) -> list[dict]:
            prompts = [[{"role": "user", "content": row["text"]}] for row in asked]
            fits = [len(ids) <= room for ids in engine.prompt_ids(tokenizer, prompts)]
            due = [
                row | {"prompt": prompt, "temperature": 0.0, "seed": 0}
                for row, prompt, fit in zip(asked, prompts, fits, strict=True)
                if fit
            ]
            said = iter(write(due, tick) if due else [])
            told = [{"said": next(said)["completion"]} if fit else {"unasked": TOO_LONG} for fit in fits]
            return [row | NOTHING | found for row, found in zip(asked, told, strict=True)]

        return judge


@dataclass(frozen=True)
class Weighs:
    """A worker: a judge here whose two letters are weighed by a forward pass."""

    local: comparison.Local
    columns: ClassVar[pa.Schema] = COLUMNS

    def load(self) -> rows.Work:
        ask = self.local.load()

        def judge(asked: list[dict], tick: rows.Tick) -> list[dict]:
            found = ask([(row["id"], [{"role": "user", "content": row["text"]}], "", "") for row in asked])
            why = {True: TOO_LONG, False: None}
            return [
                row | NOTHING | {"p_first": value, "unasked": why[value is None]}
                for row, value in zip(asked, found, strict=True)
            ]

        return judge


def asked_as_it_is(question: comparison.Question) -> list[chat.Message]:
    """The prompt alone: the words show the answers already."""
    return question[1]


def judge_of(params: Any, model: Path, due: list[dict], letters: bool) -> Served | Writes | Weighs:
    """Who judges what is due: by the odds of two letters, or in writing."""
    referee, runtime = params.referee, params.runtime
    if referee.served:
        asking = referee.top_logprobs if letters else 0, referee.max_tokens, referee.limit_by
        return Served(endpoint.Served(referee.served, *asking, runtime.judge_url, runtime.judge_connections), letters)
    if letters:
        return Weighs(comparison.Local(model, asked_as_it_is, params.dtype, batching.layout(runtime)))
    longest = room(model, due, referee.max_tokens)
    return Writes(engines.sampler(params, model, longest, referee.max_tokens))


def room(model: Path, due: list[dict], max_tokens: int) -> int:
    """Tokens of the longest question and its answer, at most the judge's context."""
    tokenizer = chat.load_tokenizer(model)
    longest = max(len(chat.prompt_ids(tokenizer, [{"role": "user", "content": row["text"]}])) for row in due)
    return min(longest + max_tokens, engines.context(model))


def main(params: Any, asked: Path, answers: Path, model: Path, words: Path, *, verdicts: Path) -> None:
    questions = joined.joined(pq.read_table(asked).to_pylist(), pq.read_table(answers).to_pylist())
    due, letters = laid_out(questions, words), questions[0]["task"] == "alpaca_eval"
    worker = judge_of(params, model, due, letters)
    size = judging.UNCUT if params.referee.served else CHUNK
    (made,) = rows.mapped([due], worker, "judge", size, key=("id", "place"))
    check_asked(made)
    pq.write_table(pa.Table.from_pylist(made, SCHEMA), verdicts)
    lost = sum(row["unasked"] is not None for row in made)
    print(f"verdicts: {len(made)} on {answers} by {params.referee.served or model}, {lost} not to be had")


def check_asked(made: list[dict]) -> None:
    """Raise ValueError where no verdict at all could be had."""
    if all(row["unasked"] for row in made):
        rule = f"none of {len(made)} verdicts could be had ({made[0]['unasked']})"
        raise ValueError(f"{rule}; take a judge with a longer context, or shorter answers")
