"""Let a policy answer the questions of a chat benchmark, turn by turn, each turn behind its own answers.

Reads   policy: a model folder; asked: rows of stages/benchmarks/chats/questions.py
Writes  answers: id; completions, finished, tokens: one a turn
Params  generate.thinking (strip: an answer is what is said behind it); dtype, seed

All turns of a chunk's questions go through one engine, the first turns of all before the second ones. Nothing is cut
off in front: a question whose turns and answers are over the model's context is refused before the engine starts.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from stages import chat, rows
from stages.benchmarks import engines
from stages.sampling import engine

COLUMNS = pa.schema(
    [
        ("completions", pa.list_(pa.string())),
        ("finished", pa.list_(pa.bool_())),
        ("tokens", pa.list_(pa.int32())),
    ]
)
SCHEMA = pa.schema([("id", pa.string()), *COLUMNS])
CHUNK = 256


def conversation(turns: list[str], said: list[str]) -> list[chat.Message]:
    """The user's turns up to the next one that is due, the policy's answers between them."""
    found = []
    for place, text in enumerate(turns[: len(said) + 1]):
        found.append({"role": "user", "content": text})
        found += [{"role": "assistant", "content": answer} for answer in said[place : place + 1]]
    return found


@dataclass(frozen=True)
class Talker:
    """A worker: questions to answers, all turns of them."""

    sampler: engine.Sampler
    columns: ClassVar[pa.Schema] = COLUMNS

    def load(self) -> rows.Work:
        sample, seed = self.sampler.load(), self.sampler.seed

        def due(row: dict, said: list[dict]) -> dict:
            turn = len(said)
            prompt = conversation(row["turns"], [answer["completion"] for answer in said])
            names = {"id": row["id"], "prompt": prompt, "temperature": row["temperature"]}
            return names | {"seed": engine.row_seed(seed, "chat", row["id"], turn)}

        def talk(questions: list[dict], tick: rows.Tick) -> list[dict]:
            said: dict[str, list[dict]] = {row["id"]: [] for row in questions}
            for turn in range(max(len(row["turns"]) for row in questions)):
                asked = [due(row, said[row["id"]]) for row in questions if turn < len(row["turns"])]
                for answer in sample(asked, tick if turn == 0 else lambda _: None):
                    said[answer["id"]].append(answer)
            return [row | told(said[row["id"]]) for row in questions]

        return talk


def told(answers: list[dict]) -> dict[str, Any]:
    """COLUMNS of the answers to one question."""
    return {
        "completions": [answer["completion"] for answer in answers],
        "finished": [answer["finished"] for answer in answers],
        "tokens": [len(answer["token_ids"]) for answer in answers],
    }


def longest(policy: Path, asked: list[dict]) -> int:
    """Tokens of the longest question with all answers that may come. Raises ValueError where the context is shorter."""
    tokenizer, context = chat.load_tokenizer(policy), engines.context(policy)
    most = 0
    for row in asked:
        turns = [chat.prompt_ids(tokenizer, conversation([text], [])) for text in row["turns"]]
        tokens = sum(len(ids) + row["max_tokens"] for ids in turns)
        if tokens > context:
            rule = f"{len(turns)} turns of question {row['id']} and their answers take {tokens} tokens"
            raise ValueError(f"{rule}, the context of {policy} is {context}; lower max_tokens in chats")
        most = max(most, tokens)
    return most


def main(params: Any, policy: Path, asked: Path, *, answers: Path) -> None:
    questions = pq.read_table(asked).to_pylist()
    worker = Talker(engines.sampler(params, policy, longest(policy, questions), questions[0]["max_tokens"]))
    (made,) = rows.mapped([questions], worker, "answer", CHUNK, key=("id",))
    pq.write_table(pa.Table.from_pylist(made, SCHEMA), answers)
    tokens = [number for row in made for number in row["tokens"]]
    print(f"turns: {len(made)} questions of {asked.stem} by {policy}, {len(tokens)} answers, {sum(tokens):,} tokens")
