"""Models of other families than the quickstart's go through the whole smoke pipeline: training, vLLM, scoring, DPO.

Run     python -m tests.trust.families [family ...]     (or: make families)
Prints  a line per family: the seconds, and what was wrong

Each is a tiny random model over bytes, brought as people bring theirs: a folder at its digest.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stages.training import digest, origins
from tests.conftest import copy_tree, sh

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": False},
    "mistral": {"sliding_window": 16, "tie_word_embeddings": False},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {"sliding_window": 16},
    "gemma3_text": {"sliding_window": 16},
    "phi3": {"sliding_window": 16},
    "olmo2": {},
}
"""Model types of transformers, and what of their configuration is put to the test: untied heads, sliding windows."""
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "initializer_range": 0.1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def make(family: str, folder: Path) -> Path:
    """A tiny random model of the family with the smoke profile's tokenizer, as somebody would have saved it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from stages.training import base

    _, tokenizer = base.tiny_random(1, torch.float32)
    torch.manual_seed(1)
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **(SIZES | FAMILIES[family]))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.chat_template = origins.TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def run(family: str, folder: Path) -> str:
    """What was wrong with the whole pipeline on this model; nothing where it ran to its report."""
    model = make(family, folder / "own_model")
    copy_tree(folder)
    brought = f"bases.base.model={model.name} bases.base.revision={digest.model(model)}"
    done = sh(f"python -m stages.tools.profile smoke {brought} && dvc --wait-for-lock repro", folder)
    return "" if done.returncode == 0 else (done.stdout[-500:] + done.stderr[-1500:])


def main() -> None:
    wrong = {}
    for family in sys.argv[1:] or FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            wrong[family] = run(family, Path(folder))
        told = "failed" if wrong[family] else "whole"
        print(f"{family}: {told}, {time.monotonic() - began:.0f} s\n{wrong[family]}".rstrip(), flush=True)
    sys.exit(1 if any(wrong.values()) else 0)


if __name__ == "__main__":
    main()
