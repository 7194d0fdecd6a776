"""Fine-tune the base model on chosen answers: pi_0, the first policy and the fixed reference of every iteration.

Reads   model: the base model; demonstrations: prompt, chosen, chosen_finished
Writes  policy/: the model folder of pi_0; curve: one CSV row per optimiser step; metrics: rows in, trained on and
        left out by name, [step, loss] of every step
Params  sft.rows, learning_rate, epochs, global_batch_rows, warmup_share, max_tokens; dtype, seed
Source  RLHF Workflow, arXiv 2405.07863, section 4.1; the loss counts the answer's tokens only

An answer that did not end by itself teaches no end, so it is left out (`unfinished`); so is what stands behind the
first sft.rows that did (`over_rows`), and what is longer than sft.max_tokens (`over_max_tokens`). With sft.rows = 0
nothing is trained, and pi_0 is the base model, byte for byte: an instruct model as it is.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages import chat
from stages.training import harness, steps, tokens

DISTRIBUTED = True


def tokenize(tokenizer: Any, row: dict) -> dict[str, list[int]]:
    """input_ids and labels of one demonstration, -100 on the prompt."""
    prompt = chat.prompt_ids(tokenizer, row["prompt"])
    answer = chat.completion_ids(tokenizer, row["chosen"][0]["content"], row["chosen_finished"])
    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


SCHEMA = pa.schema({"input_ids": tokens.IDS, "labels": tokens.IDS})


def sort(tokenizer: Any, row: dict, longest: int) -> tuple[str, dict]:
    """A demonstration, tokenized, and whether it is to train on, or why not."""
    if not row["chosen_finished"]:
        return "unfinished", {}
    shown = tokenize(tokenizer, row)
    return ("over_max_tokens", {}) if len(shown["input_ids"]) > longest else ("train", shown)


def chosen(model: Path, demonstrations: Path, section: Any) -> tuple[Any, dict[str, int]]:
    """The demonstrations to train on, and how many rows each rule left out. Raises ValueError where none is left."""
    finished = pq.read_table(demonstrations, columns=["chosen_finished"])["chosen_finished"].to_numpy()
    ended = np.flatnonzero(finished)
    wanted = ended[: section.rows]
    with pq.ParquetFile(demonstrations) as file:
        batches = file.iter_batches(tokens.BATCH, columns=["prompt", "chosen", "chosen_finished"])
        rule, until = partial(sort, longest=section.max_tokens), int(max(wanted, default=-1)) + 1
        found = tokens.once(batches, until, model, rule, {"train": SCHEMA})
    if not len(found.sets["train"]):
        raise ValueError(f"no answer of {len(wanted)} fits sft.max_tokens = {section.max_tokens}; raise it")
    drops = {
        "unfinished": len(finished) - len(ended),
        "over_rows": len(ended) - len(wanted),
        "over_max_tokens": found.drops.get("over_max_tokens", 0),
    }
    return found.sets["train"], drops


def main(params: Any, model: Path, demonstrations: Path, *, policy: Path, curve: Path, metrics: Path) -> None:
    if params.sft.rows == 0:
        left = pq.read_metadata(demonstrations).num_rows
        harness.untrained(model, policy, curve)
        facts = harness.account(0, {"over_rows": left}, [])
        metrics.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        return print(f"sft: pi_0 is {model} as it is, since sft.rows = 0; {left} demonstrations are left out")
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    class Trainer(steps.Ordered, SFTTrainer): ...

    tokenizer, section = chat.load_tokenizer(model), params.sft
    rows, drops = chosen(model, demonstrations, section)
    settings = SFTConfig(**harness.arguments(section, params, len(rows)))
    data = steps.filled(rows, settings)
    network = AutoModelForCausalLM.from_pretrained(model, **harness.model_options())
    trainer = Trainer(network, args=settings, train_dataset=data, processing_class=tokenizer)
    harness.train(trainer, params)
    harness.save(trainer, tokenizer, policy, params.dtype)
    harness.write_curve(trainer, curve)
    facts = harness.account(len(rows), drops, harness.losses(trainer))
    metrics.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(f"sft: {len(rows)} answers, left out {drops}, loss {facts['curve'][0][1]:.3f} first")
