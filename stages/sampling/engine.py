"""Sample completions from a policy with vLLM: one request and one seed per sample.

`generate` and `respond` share it.
"""

import hashlib
import math
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from stages import chat


class Request(NamedTuple):
    """One completion to draw; `seed` decides it alone, whatever else is in flight."""

    prompt: list[chat.Message]
    temperature: float
    seed: int


class Sample(NamedTuple):
    """One completion: its text, whether it ended by itself, its token ids with the end of turn, and, where asked for,
    log pi of them.

    log pi is at temperature 1, summed, in nats; NaN where it was not asked for, since sampling is slower with it (188
    against 209 tokens/s on two cores).
    """

    completion: str
    finished: bool
    token_ids: list[int]
    logprob: float


def row_seed(*parts: object) -> int:
    """A 31-bit seed from what names the row: never from the process, the shard or the order of calls."""
    return int.from_bytes(hashlib.sha256(":".join(map(str, parts)).encode()).digest()[:4], "big") >> 1


def token_ids(tokenizer: Any, prompts: list[list[chat.Message]], context: int, max_new_tokens: int) -> list[list[int]]:
    """Prompts as ids. Raises ValueError for one that leaves no room for its answer, before any model is loaded."""
    rendered = {str(prompt): chat.prompt_ids(tokenizer, prompt) for prompt in prompts}
    for prompt in prompts:
        ids = rendered[str(prompt)]
        if len(ids) + max_new_tokens > context:
            start = prompt[-1]["content"][:40]
            raise ValueError(
                f"prompt '{start}...' has {len(ids)} tokens, with {max_new_tokens} to come over the model's {context}; shorten or drop it"
            )
    return [rendered[str(prompt)] for prompt in prompts]


def engine_options(runtime: Any, longest: int) -> dict[str, Any]:
    """vLLM's settings for this machine. On a CPU, chunked prefill dies with a seed per request (vLLM 0.32.0), so it is
    off.
    """
    import torch

    if torch.cuda.is_available():
        return {
            "gpu_memory_utilization": runtime.engine_memory_share,
            "tensor_parallel_size": runtime.tensor_parallel,
            "max_model_len": longest,
        }
    return {
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(longest, 4096),
        "max_model_len": longest,
    }


def start_engine(model: Path, dtype: str, seed: int, runtime: Any, longest: int) -> Any:
    """A vLLM engine in this process, deaf to the network and to remote code."""
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(runtime.engine_cpu_cache_gib)
    from vllm import LLM

    options = engine_options(runtime, longest)
    return LLM(
        str(model),
        dtype=dtype,
        seed=seed,
        max_num_seqs=runtime.engine_sequences,
        enable_prefix_caching=False,
        load_format="safetensors",
        **options,
    )  # pyright: ignore[reportArgumentType]


def sample(
    model: Path,
    requests: list[Request],
    max_new_tokens: int,
    dtype: str,
    seed: int,
    runtime: Any,
    with_logprob: bool = False,
) -> tuple[list[Sample], str]:
    """Draw every request, in order, and say how fast. Raises ValueError for a prompt over the model's context."""
    from transformers import AutoConfig

    tokenizer = chat.load_tokenizer(model)
    context = AutoConfig.from_pretrained(model, local_files_only=True).max_position_embeddings
    prompts = token_ids(tokenizer, [r.prompt for r in requests], context, max_new_tokens)
    engine = start_engine(model, dtype, seed, runtime, max(map(len, prompts)) + max_new_tokens)
    from vllm import SamplingParams

    common = {"max_tokens": max_new_tokens, "top_p": 1.0, "top_k": 0, "stop_token_ids": [chat.end_of_turn(tokenizer)]}
    settings = [
        SamplingParams(temperature=r.temperature, seed=r.seed, logprobs=0 if with_logprob else None, **common)
        for r in requests
    ]
    start = time.monotonic()
    outputs = engine.generate([{"prompt_token_ids": ids} for ids in prompts], settings, use_tqdm=True)
    seconds = time.monotonic() - start
    samples = [to_sample(output.outputs[0], tokenizer) for output in outputs]
    tokens = sum(len(s.token_ids) for s in samples)
    return samples, f"{tokens:,} tokens in {seconds:.0f} s, {tokens / seconds:.0f} tokens/s"


def to_sample(output: Any, tokenizer: Any) -> Sample:
    logprob = (
        sum(next(iter(step.values())).logprob for step in output.logprobs) if output.logprobs is not None else math.nan
    )
    text = tokenizer.decode(output.token_ids, skip_special_tokens=True)
    return Sample(text, output.finish_reason == "stop", list(output.token_ids), logprob)
