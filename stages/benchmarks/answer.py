"""Let a policy answer a benchmark's rows: write a text, or weigh the choices.

Reads   policy: a model folder; asked: rows of stages/benchmarks/ask.py
Writes  answers: id, sample; logprob of the choice (a sum, nats), or completion, finished, tokens
Params  generate.thinking (strip: an answer is what is said behind it); dtype, seed
Source  how a text becomes ids: lm_eval/api/model.py, _encode_pair; a choice's beginning is cut where the question alone
        would end, spaces at its end going to the choice

The text is sampled at the row's temperature until one of its stops, by vLLM; choices are weighed by a forward pass in
which those of one question, or all of one subject, share what they begin with alike, and the letters of a question are
one pass. Nothing is cut off in front: a row that is longer than the model's context is refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from stages import chat, rows
from stages.benchmarks import engines
from stages.sampling import engine
from stages.signals import batching, forward

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("sample", pa.int32()),
        ("logprob", pa.float64()),
        ("completion", pa.string()),
        ("finished", pa.bool_()),
        ("tokens", pa.int32()),
    ]
)
CHUNK = 512


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids with the beginning-of-text token where the tokenizer writes one, once."""
    begins = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
    return tokenizer(text, add_special_tokens=not begins).input_ids


def choice_ids(tokenizer: Any, context: str, continuation: str) -> forward.Row:
    """Ids of a question and of a choice behind it."""
    question = context.rstrip()
    whole = text_ids(tokenizer, context + continuation)
    asked = len(text_ids(tokenizer, question))
    return whole[:asked], whole[asked:]


def sharing(tokens: list[forward.Row], asked: list[dict]) -> list[str]:
    """The name of each row's group, whose common beginning is computed once: by question, or by subject where that
    leaves fewer tokens to compute, since all its questions have the same shots.
    """
    by_question, by_subject = [row["id"] for row in asked], [row["subject"] for row in asked]
    return min((by_question, by_subject), key=lambda names: computed(tokens, names))


def computed(tokens: list[forward.Row], names: list[str]) -> int:
    """Tokens that a model computes where the rows of a name share their beginning."""
    groups: dict[str, list[forward.Row]] = {}
    for answered in forward.passes(tokens, names):
        groups.setdefault(names[answered[0]], []).append(tokens[answered[0]])
    total = 0
    for members in groups.values():
        shared = batching.common_prefix([question for question, _ in members]) if len(members) > 1 else 0
        total += shared + sum(len(question) + len(choice) - shared for question, choice in members)
    return total


@dataclass(frozen=True)
class Weigher:
    """A worker: questions with choices to the choices' log-probabilities."""

    model: Path
    dtype: str
    layout: batching.Layout
    columns: ClassVar[pa.Schema] = pa.schema([("logprob", pa.float64()), ("tokens", pa.int32())])

    def load(self) -> rows.Work:
        tokenizer, values = chat.load_tokenizer(self.model), forward.logprobs(self.model, self.dtype, self.layout)

        def weigh(asked: list[dict], tick: rows.Tick) -> list[dict]:
            tokens = [choice_ids(tokenizer, row["context"], row["continuation"]) for row in asked]
            found = values(tokens, sharing(tokens, asked), tick)
            return [
                row | {"logprob": value, "tokens": len(choice)}
                for row, value, (_, choice) in zip(asked, found, tokens, strict=True)
            ]

        return weigh


@dataclass(frozen=True)
class Writer:
    """A worker: questions to texts."""

    engine: engine.Sampler
    columns: ClassVar[pa.Schema] = pa.schema(
        [("completion", pa.string()), ("finished", pa.bool_()), ("tokens", pa.int32())]
    )

    def load(self) -> rows.Work:
        tokenizer, started = chat.load_tokenizer(self.engine.model), engine.start_engine(self.engine)
        from vllm import SamplingParams

        def write(asked: list[dict], tick: rows.Tick) -> list[dict]:
            settings = [
                SamplingParams(
                    temperature=row["temperature"],
                    seed=engine.row_seed(self.engine.seed, "answer", row["id"], row["sample"]),
                    max_tokens=row["max_tokens"],
                    stop=row["until"],
                    stop_token_ids=[chat.end_of_turn(tokenizer)],
                )
                for row in asked
            ]
            prompts = [{"prompt_token_ids": text_ids(tokenizer, row["context"])} for row in asked]
            made = [output.outputs[0] for output in engine.drawn(started, prompts, settings, tick)]
            return [row | self.told(one) for row, one in zip(asked, made, strict=True)]

        return write

    def told(self, output: Any) -> dict[str, Any]:
        """`columns` of one of vLLM's completions."""
        text = engine.without_thinking(output.text) if self.engine.thinking == "strip" else output.text
        return {"completion": text, "finished": output.finish_reason == "stop", "tokens": len(output.token_ids)}


def longest_of_each(asked: list[dict]) -> list[dict]:
    """Of every question and its context the row with the longest continuation: 25 shots are not read again for each."""
    found: dict[tuple[str, str], dict] = {}
    for row in sorted(asked, key=lambda row: len(row["continuation"] or "")):
        found[row["id"], row["context"]] = row
    return list(found.values())


def check_room(policy: Path, asked: list[dict]) -> int:
    """Tokens of the longest row with all that may come. Raises ValueError where that is over the model's context."""
    tokenizer, context = chat.load_tokenizer(policy), engines.context(policy)
    longest = 0
    for row in longest_of_each(asked):
        told = len(text_ids(tokenizer, row["context"] + (row["continuation"] or ""))) + (row["max_tokens"] or 0)
        if told > context:
            rule = f"question {row['id']} of {row['task']} takes {told} tokens, the context of {policy} is {context}"
            raise ValueError(f"{rule}; lower its shots or max_tokens in benchmarks, or take the question out")
        longest = max(longest, told)
    return longest


def worker(params: Any, policy: Path, asked: list[dict]) -> Weigher | Writer:
    """Who answers these rows."""
    longest = check_room(policy, asked)
    if asked[0]["kind"] == "loglikelihood":
        return Weigher(policy, params.dtype, batching.layout(params.runtime))
    return Writer(engines.sampler(params, policy, longest, max(row["max_tokens"] for row in asked)))


def main(params: Any, policy: Path, asked: Path, *, answers: Path) -> None:
    questions = pq.read_table(asked).to_pylist()
    (made,) = rows.mapped([questions], worker(params, policy, questions), "answer", CHUNK)
    missing = {"logprob": None, "completion": None, "finished": None}
    pq.write_table(pa.Table.from_pylist([missing | row for row in made], SCHEMA), answers)
    tokens = sum(row["tokens"] for row in made)
    number = len({row["id"] for row in questions})
    print(f"answer: {number} questions of {asked.stem} by {policy}, {len(made)} rows, {tokens:,} tokens")
