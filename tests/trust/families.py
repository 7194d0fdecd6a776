"""Models of other families than the quickstart's go through the whole smoke pipeline: training, vLLM, scoring, DPO.

Run     python -m tests.trust.families [family ...]     (or: make families)
Prints  a line per family: the seconds, and what was wrong

Each is a tiny random model over bytes, brought as people bring theirs: a folder at its digest, most with the family's
published chat template. The ids that log pi_0 was computed of must be those of the whole conversations, as transformers
renders them with that template: `base`, `generate`, `reference` and `dpo` have then seen the same ones.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stages.training import base, digest
from tests import test_template
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
TEMPLATES = {
    "llama": "llama3",
    "qwen2": "qwen2_5",
    "qwen3": "qwen3",
    "gemma2": "gemma",
    "gemma3_text": "gemma3",
    "phi3": "phi3",
}
"""Of those that TRL installs; the others have chatml.jinja, the quickstart's."""
SETTINGS = {"qwen3": {"enable_thinking": False}}
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
    """A tiny random model of the family over bytes and its template's control words, as somebody would have saved
    it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    known = TEMPLATES.get(family)
    tokenizer = test_template.published(known) if known else base.tiny_random(1, torch.float32)[1]
    torch.manual_seed(1)
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **(SIZES | FAMILIES[family]))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run(family: str, folder: Path) -> str:
    """What was wrong with the whole pipeline on this model; nothing where it ran to its report."""
    model = make(family, folder / "own_model")
    copy_tree(folder)
    brought = f"bases.base.model={model.name} bases.base.revision={digest.model(model)}"
    brought += f" 'bases.base.template_settings={json.dumps(SETTINGS.get(family, {}))}'"
    done = sh(f"python -m stages.tools.profile smoke {brought} && dvc --wait-for-lock repro", folder)
    return wrong_ids(folder) if done.returncode == 0 else (done.stdout[-500:] + done.stderr[-1500:])


def wrong_ids(folder: Path) -> str:
    """A pair whose log pi_0 is of other ids than its two conversations have; nothing where there is none."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "models/pi0")
    pairs = pq.read_table(folder / "data/history/pi1.parquet").to_pylist()
    as_written = [
        pair for pair in pairs if not any(is_rewritten(pair[side]) for side in ("prompt", "chosen", "rejected"))
    ]
    for pair in as_written:
        prompt = tokenizer.apply_chat_template(pair["prompt"], add_generation_prompt=True, return_dict=False)
        ids = {"prompt_ids": prompt}
        for side in ("chosen", "rejected"):
            whole = tokenizer.apply_chat_template([*pair["prompt"], *pair[side]], return_dict=False)
            end = whole.index(ends(tokenizer), len(prompt))  # phi3's template writes another behind the last turn
            ids[f"{side}_ids"] = whole[len(prompt) : end + pair[f"{side}_finished"]]
        if digest.tokens(ids) != pair["ref_tokens"]:
            return f"pair {pair['id']}: its log-probabilities are of other ids than {ids}"
    return "" if as_written else f"none of {len(pairs)} pairs could be compared"


def is_rewritten(said: list[dict[str, str]]) -> bool:
    """Whether a template may write other words than these: some trim, Qwen's moves thinking to its own place."""
    texts = [message["content"] for message in said]
    return any(text != text.strip() or "think>" in text for text in texts)


def ends(tokenizer: Any) -> int:
    """The token that ends a turn."""
    return tokenizer.convert_tokens_to_ids(tokenizer.eos_token)


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
