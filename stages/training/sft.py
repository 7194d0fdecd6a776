"""Fine-tune the base model on chosen answers: pi_0, the first policy and the fixed reference of every iteration.

Reads   model: the base model; demonstrations: prompt, chosen, chosen_finished
Writes  policy/: the model folder of pi_0; curve: one CSV row per optimiser step; metrics: rows in, trained on and
        left out by name, the rows that they are packed into, tokens, those learnt, the answers that these are and those
        that are context, [step, loss] of every step
Params  sft.rows, turns (last: the answer alone; all: what the assistant said before it too), packing (rows joined up to
        max_tokens, none seeing another), learning_rate, epochs, global_batch_rows (packed ones count as one),
        warmup_share, max_tokens (of a whole conversation); dtype, seed
Source  RLHF Workflow, arXiv 2405.07863, section 4.1: packed to 8192 tokens, every turn; the loss counts the
        assistant's tokens only

An answer that did not end by itself teaches no end, so it is left out (`unfinished`); so is what stands behind the
first sft.rows that did (`over_rows`), and what is longer than sft.max_tokens (`over_max_tokens`). With sft.rows = 0
nothing is trained, and pi_0 is the base model, byte for byte: an instruct model as it is.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages import chat
from stages.training import harness, labelled, tokens

DISTRIBUTED = True
SCHEMA = labelled.SCHEMA.append(pa.field("said", pa.int32()))
"""Of a demonstration also how many answers of the assistant's it holds."""


def earlier(tokenizer: Any, prompt: list[chat.Message], ids: list[int]) -> Iterator[tuple[int, list[int]]]:
    """Where in a prompt's ids the assistant's answers stand, and their ids.

    One that the template writes otherwise there than it is sampled, as Qwen 3's takes earlier thoughts out, is not
    among them: it would teach what no sampler asks for.
    """
    for k in range(1, len(prompt)):
        if [message["role"] for message in prompt[k - 1 : k + 1]] == ["user", "assistant"]:
            asked = chat.prompt_ids(tokenizer, prompt[:k])
            said = chat.completion_ids(tokenizer, prompt[k]["content"], finished=True)
            if ids[: len(asked) + len(said)] == asked + said:
                yield len(asked), said


def tokenize(tokenizer: Any, row: dict, turns: str) -> dict[str, list[int]]:
    """input_ids and labels of one demonstration, -100 on all that the assistant did not say; with `turns` last, on the
    whole prompt.
    """
    prompt = chat.prompt_ids(tokenizer, row["prompt"])
    answer = chat.completion_ids(tokenizer, row["chosen"][0]["content"], row["chosen_finished"])
    labels = [-100] * len(prompt) + answer
    for start, said in earlier(tokenizer, row["prompt"], prompt) if turns == "all" else ():
        labels[start : start + len(said)] = said
    return {"input_ids": prompt + answer, "labels": labels}


def sort(tokenizer: Any, row: dict, turns: str, longest: int) -> tuple[str, dict]:
    """A demonstration, tokenized, and whether it is to train on, or why not."""
    if not row["chosen_finished"]:
        return "unfinished", {}
    shown = tokenize(tokenizer, row, turns)
    said = 1 + sum(message["role"] == "assistant" for message in row["prompt"])
    return ("over_max_tokens", {}) if len(shown["input_ids"]) > longest else ("train", shown | {"said": said})


def chosen(model: Path, demonstrations: Path, section: Any) -> tuple[Any, dict[str, int]]:
    """The demonstrations to train on, and how many rows each rule left out. Raises ValueError where none is left."""
    finished = pq.read_table(demonstrations, columns=["chosen_finished"])["chosen_finished"].to_numpy()
    ended = np.flatnonzero(finished)
    wanted = ended[: section.rows]
    rule, until = partial(sort, turns=section.turns, longest=section.max_tokens), int(max(wanted, default=-1)) + 1
    columns, parts = ["prompt", "chosen", "chosen_finished"], {"train": SCHEMA}
    found = tokens.of_file(demonstrations, columns, model, rule, parts, until)
    if not len(found.sets["train"]):
        raise ValueError(f"no answer of {len(wanted)} fits sft.max_tokens = {section.max_tokens}; raise it")
    drops = {
        "unfinished": len(finished) - len(ended),
        "over_rows": len(ended) - len(wanted),
        "over_max_tokens": found.drops["over_max_tokens"],
    }
    return found.sets["train"], drops


def untrained(model: Path, demonstrations: Path, policy: Path, curve: Path, metrics: Path) -> None:
    left = pq.read_metadata(demonstrations).num_rows
    harness.untrained(model, policy, curve)
    metrics.write_text(json.dumps(harness.account(0, {"over_rows": left}, []), indent=2) + "\n", encoding="utf-8")
    print(f"sft: pi_0 is {model} as it is, since sft.rows = 0; {left} demonstrations are left out")


def main(params: Any, model: Path, demonstrations: Path, *, policy: Path, curve: Path, metrics: Path) -> None:
    if params.sft.rows == 0:
        return untrained(model, demonstrations, policy, curve, metrics)
    from transformers import AutoModelForCausalLM

    tokenizer, section = chat.load_tokenizer(model), params.sft
    rows, drops = chosen(model, demonstrations, section)
    packed = labelled.packed(rows.select_columns(labelled.SCHEMA.names), section)
    load = partial(AutoModelForCausalLM.from_pretrained, model, **harness.model_options())
    trainer = labelled.trainer(params, section, packed, tokenizer, load)
    harness.train(trainer, params)
    harness.save(trainer, tokenizer, policy, params.dtype)
    harness.write_curve(trainer, curve)
    learnt, losses = labelled.learnt(rows), harness.losses(trainer)
    said = pc.sum(rows.data.column("said")).as_py()  # type: ignore[attr-defined]
    learnt["answers_in_context"] = said - learnt["answers"]
    facts = harness.account(len(rows), drops, losses) | {"packed_rows": len(packed)} | learnt
    metrics.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    per_step = learnt["tokens"] * section.epochs / len(losses)
    told = (
        f"{learnt['answers']} answers of {len(rows)} conversations in {len(packed)} rows, {per_step:,.0f} tokens a step"
    )
    print(f"sft: {told}, left out {drops}, loss {losses[0][1]:.3f} first")
