"""How a vLLM engine is laid out for what the benchmarks write: the policies' answers, and a judge's words here."""

from pathlib import Path
from typing import Any

from stages.sampling import engine


def sampler(params: Any, model: Path, longest: int, max_tokens: int) -> engine.Sampler:
    """Describe the worker; `longest` is the most tokens that a question and its answer can have."""
    machine, thinking = engine.layout(params.runtime), params.generate.thinking
    return engine.Sampler(model, params.dtype, params.seed, max_tokens, longest, False, thinking, machine)


def context(model: Path) -> int:
    """Tokens that a model was made for."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(model, local_files_only=True).max_position_embeddings
