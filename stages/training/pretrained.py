"""Bring a reward model that others trained, to rank, to be the proxy, or to be measured beside the others.

Reads   template: a Jinja file, or a folder with one or none; the folder or the hub
Writes  reward/ - safetensors, config, tokenizer, chat template; in it reward_contract.json, by which
        stages/signals/workers.py knows that a row is the whole conversation, as the model's own template renders it
Params  pretrained.model, pretrained.revision; pretrained.template_settings, as in bases; dtype

One output, read at the last token that is no padding: where the padding token is the one that ends a conversation,
another takes its place.
"""

import json
from pathlib import Path
from typing import Any

from stages import chat
from stages.training import origins
from stages.training import template as templates

FACTS = "reward_contract.json"
"""The file beside the model: the forms of prompts that its template refuses, and its context in tokens."""


def check_head(name: str, network: Any, missing: list[str]) -> None:
    """Raise ValueError unless the model gives one number and came with the weights for it."""
    if network.config.num_labels != 1 or missing:
        told = f"its head has {network.config.num_labels} outputs, {len(missing)} of its weights are not in the files"
        raise ValueError(f"pretrained.model = {name}: {told}; name a reward model, with one output")


def give_template(name: str, tokenizer: Any, template: Path, settings: dict[str, Any]) -> None:
    """Raise ValueError for a model that has none, since a reward model understands none but its own."""
    tokenizer.chat_template = origins.given_template(template) or tokenizer.chat_template
    if tokenizer.chat_template is None:
        raise ValueError(f"pretrained.model = {name}: has no chat template; put its own into {template}")
    tokenizer.chat_template = templates.settled(tokenizer.chat_template, settings)
    templates.check_plain(tokenizer)
    templates.check_date(tokenizer)


def give_padding(tokenizer: Any) -> None:
    """A token that no conversation ends with. Raises ValueError where the tokenizer has no other special one."""
    last = chat.rendered(tokenizer, chat.ANSWERED)[-1]
    if tokenizer.pad_token_id in (None, last):
        others = [token for token in chat.special_ids(tokenizer) if token != last]
        if not others:
            raise ValueError("pretrained.model: its tokenizer has no special token to pad with; add one to it")
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(others[0])


def main(params: Any, template: Path, *, reward: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    section, dtype = params.pretrained, getattr(torch, params.dtype)
    loaded, tokenizer = origins.folder_or_hub(
        AutoModelForSequenceClassification, section.model, section.revision, dtype, output_loading_info=True
    )
    network, found = loaded
    check_head(section.model, network, sorted(found["missing_keys"]))
    give_template(section.model, tokenizer, template, section.template_settings)
    give_padding(tokenizer)
    config = network.config.get_text_config()
    network.config.pad_token_id = config.pad_token_id = tokenizer.pad_token_id
    network.save_pretrained(reward)
    tokenizer.save_pretrained(reward)
    facts = {"refused": templates.refused(tokenizer), "context": getattr(config, "max_position_embeddings", None)}
    (reward / FACTS).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    number = sum(weight.numel() for weight in network.parameters())
    print(f"pretrained: {section.model}, {number:,} weights as {params.dtype}")
