"""Which conversations can be trained on and sampled from: whole, alternating, as the base model's template takes
them.

`prompts`, `filter`, `demonstrations` and `reward_bench` share it.
"""

import json
from pathlib import Path
from typing import NamedTuple

import polars as pl

RULES = ["empty_turn", "nul_character", "broken_alternation", "control_words", "system_role", "several_turns"]
SAID = pl.element().struct
ROLES = "^( system)?( user assistant)* user$"


class Template(NamedTuple):
    """What `base` found out of the model's chat template (stages/training/template.py writes it).

    control_words would be rendered as tokens; refused are names of RULES; fold_system: a system message becomes the
    beginning of the first user turn. In tokens: what is put around the first message of a prompt and around each more.
    """

    control_words: list[str]
    refused: dict[str, str]
    fold_system: bool
    first: int
    more: int


def read(model: Path) -> Template:
    facts = json.loads((model / "text_contract.json").read_text(encoding="utf-8"))
    return Template(*(facts[name] for name in Template._fields))


def without_silence(prompt: pl.Expr) -> pl.Expr:
    """The messages without empty ones of the system: they say nothing, and some templates would write their header."""
    silent = SAID.field("content").str.strip_chars() == ""
    return prompt.list.filter(SAID.field("role").ne_missing("system") | ~silent)


def folded(prompt: pl.Expr) -> pl.Expr:
    """The messages with those of the system at the beginning of the first user turn."""
    first, second = prompt.list.first().struct, prompt.list.get(1, null_on_oob=True).struct
    content = pl.concat_str(first.field("content"), second.field("content"), separator="\n\n")
    turn = pl.concat_list(pl.struct(pl.lit("user").alias("role"), content.alias("content")))
    both = (first.field("role") == "system") & (second.field("role") == "user")
    return pl.when(both).then(turn.list.concat(prompt.list.slice(2))).otherwise(prompt)


def fitted(prompt: pl.Expr, template: Template) -> pl.Expr:
    """Prompts (messages) as the template takes them."""
    said = without_silence(prompt)
    return folded(said) if template.fold_system else said


def broken(*sides: str, template: Template | None = None) -> dict[str, pl.Expr]:
    """Rules that a conversation breaks, `prompt` and the answers together; by name, first come first.

    Without a template, those that need none.
    """
    content, role = SAID.field("content"), SAID.field("role")
    prompt, answers = pl.col("prompt"), [pl.col(side).list.last().struct.field("content") for side in sides]
    empty = prompt.list.eval((content.str.strip_chars() == "").fill_null(True)).list.any().fill_null(True)
    for answer in answers:
        empty |= (answer.str.strip_chars() == "").fill_null(True)
    roles = pl.concat_str(pl.lit(" "), prompt.list.eval(role.fill_null("?")).list.join(" "))
    found = {
        "empty_turn": empty,
        "nul_character": holds(["\0"], answers),
        "broken_alternation": ~roles.str.contains(ROLES).fill_null(False),
    }
    if template:
        found["control_words"] = holds(template.control_words, answers)
        refused = {"system_role": roles.str.starts_with(" system"), "several_turns": roles.str.contains("assistant")}
        found |= {name: refused[name] for name in template.refused}
    return found


def holds(words: list[str], answers: list[pl.Expr]) -> pl.Expr:
    """Whether the prompt or one of the answers (texts) holds one of the words."""
    in_prompt = pl.col("prompt").list.eval(SAID.field("content").str.contains_any(words)).list.any()
    return pl.any_horizontal(in_prompt, *(answer.str.contains_any(words) for answer in answers)).fill_null(False)
