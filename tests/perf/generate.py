"""Sampling by the stage's own worker, chunk by chunk as rows.mapped deals them, against a bare vLLM loop that is given
all prompts at once; both in this run, each in a process of its own.

Run     python -m tests.perf.generate [rows per chunk]   (after `make repro`; else generate.rows_per_shard)
Prints  tokens/s of each without the engine's start, and their ratio: the median of three rounds taken in turn
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROMPTS = Path("data/prompts/pi0.parquet")
MODEL = Path("models/pi0")
ROUNDS = 3


def planned(params: Any) -> list[dict]:
    """The rows that generate@pi0 samples."""
    import pyarrow.parquet as pq

    from stages.sampling import generate

    prompts, settings = pq.read_table(PROMPTS).to_pylist(), params.generate
    return generate.plan(prompts, settings.n, 0, settings.temperatures, params.seed, "pi0")


def stage(params: Any, size: int) -> float:
    """Tokens per second of the worker on chunks of `size` rows."""
    from stages import shards
    from stages.sampling import engine

    asked = planned(params)
    prompts = [row["prompt"] for row in asked]
    work = engine.sampler(MODEL, prompts, params, with_logprob=False).load()
    start = time.monotonic()
    made = [row for chunk in shards.cut(asked, size) for row in work(chunk, lambda rows: None)]
    return sum(len(row["token_ids"]) for row in made) / (time.monotonic() - start)


def bare(params: Any) -> float:
    """Tokens per second of vLLM by itself, with the settings that a user would type."""
    import os

    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_LOGGING_LEVEL": "ERROR"}
    from vllm import LLM, SamplingParams

    limits = {"max_model_len": 256, "max_num_batched_tokens": 4096, "max_num_seqs": params.runtime.engine_sequences}
    engine = LLM(str(MODEL), dtype="float32", enforce_eager=True, enable_chunked_prefill=False, **limits)
    tokenizer, asked = engine.get_tokenizer(), planned(params)
    texts = [tokenizer.apply_chat_template(r["prompt"], add_generation_prompt=True, return_dict=False) for r in asked]
    common = {"max_tokens": params.generate.max_new_tokens, "stop_token_ids": [tokenizer.eos_token_id]}
    settings = [SamplingParams(temperature=row["temperature"], seed=row["seed"], **common) for row in asked]
    start = time.monotonic()
    prompts: Any = [{"prompt_token_ids": ids} for ids in texts]
    outputs = engine.generate(prompts, settings, use_tqdm=False)
    return sum(len(output.outputs[0].token_ids) for output in outputs) / (time.monotonic() - start)


def measured(*words: str) -> float:
    """One of the two in a process of its own."""
    command = [sys.executable, "-m", "tests.perf.generate", "--one", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    from stages.guard.params import load

    params = load(Path("params.yaml"))
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(bare(params) if sys.argv[2] == "bare" else stage(params, int(sys.argv[3]))))
        return
    size = sys.argv[1] if sys.argv[1:] else str(params.generate.rows_per_shard)
    rates: dict[str, list[float]] = {"stage": [], "bare": []}
    for _ in range(ROUNDS):
        rates["stage"].append(measured("stage", size))
        rates["bare"].append(measured("bare"))
        print({name: [round(rate) for rate in values] for name, values in rates.items()}, flush=True)
    ours, theirs = (statistics.median(values) for values in rates.values())
    print(f"chunks of {size}: {ours:.0f} tokens/s, bare vLLM {theirs:.0f} tokens/s, ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
