"""Fine-tune the base model on chosen answers: pi_0, the first policy and the fixed reference of every iteration.

Reads   model: the base model; demonstrations: prompt, chosen, chosen_finished; answers that did not end by themselves
        are left out
Writes  policy/: the model folder of pi_0; curve: one CSV row per optimiser step
Params  sft.rows, learning_rate, epochs, global_batch_rows, warmup_share, max_tokens; dtype, seed
Source  RLHF Workflow, arXiv 2405.07863, section 4.1; the loss counts the answer's tokens only
"""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stages import chat
from stages.training import harness, steps

DISTRIBUTED = True


def tokenize(tokenizer: Any, row: dict) -> dict[str, list[int]]:
    """input_ids and labels of one demonstration, -100 on the prompt."""
    prompt = chat.prompt_ids(tokenizer, row["prompt"])
    answer = chat.completion_ids(tokenizer, row["chosen"][0]["content"], row["chosen_finished"])
    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


def main(params: Any, model: Path, demonstrations: Path, *, policy: Path, curve: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    class Trainer(steps.Ordered, SFTTrainer): ...

    tokenizer = chat.load_tokenizer(model)
    finished = [row for row in pq.read_table(demonstrations).to_pylist() if row["chosen_finished"]][: params.sft.rows]
    rows = [tokenize(tokenizer, row) for row in finished]
    short = [row for row in rows if len(row["input_ids"]) <= params.sft.max_tokens]
    if not short:
        raise ValueError(f"no answer of {len(rows)} fits sft.max_tokens = {params.sft.max_tokens}; raise it")
    used = steps.shared(len(short), params.sft, params.runtime)
    settings = SFTConfig(**harness.arguments(params.sft, params, used))
    network = AutoModelForCausalLM.from_pretrained(model, **harness.model_options())
    trainer = Trainer(network, args=settings, train_dataset=Dataset.from_list(short), processing_class=tokenizer)
    harness.train(trainer)
    harness.save(trainer, tokenizer, policy, params.dtype)
    harness.write_curve(trainer, curve)
    out = f"{len(rows) - len(short)} over {params.sft.max_tokens} tokens, {len(short) - used} that the processes cannot share"
    print(f"sft: {used} answers ({out}), loss {trainer.state.log_history[0]['loss']:.3f} first")
