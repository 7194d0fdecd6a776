"""A conversation, or a turn of one, in the forms in which people write it, as messages.

        text                                     a turn; a transcript "\n\nHuman: ...\n\nAssistant:" where it asks
        {role, content}, {from, value}           a turn
        lists of either                          a conversation
A question may have a text of the system before it (SYSTEM) and an `input` behind it. `prompts`, `demonstrations` and
stages/data/ecosystem.py share it.
Source  the fields of the hub's data sets; ShareGPT's names of roles (ROLES)
"""

from pathlib import Path

import polars as pl
import pyarrow as pa

from stages.data import conversation_rules, pair_format, releases

QUESTION = ["prompt", "instruction", "question", "query"]
SYSTEM = ["system", "system_prompt"]
TURNS = [("role", "content"), ("from", "value")]
ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant"}


def first_of(names: list[str], found: pa.Schema) -> str | None:
    return next((name for name in names if name in found.names), None)


def declared(found: pa.Field, file: Path) -> pa.Field:
    """The field as this module reads it. Raises ValueError for one that holds no conversation."""
    if releases.is_text(found.type):
        return pa.field(found.name, pa.string())
    is_list = pa.types.is_list(found.type) or pa.types.is_large_list(found.type)
    turn = found.type.value_type if is_list else found.type
    names = {field.name for field in turn.fields} if pa.types.is_struct(turn) else set()
    pair = next((pair for pair in TURNS if set(pair) <= names), None)
    if not pair:
        known = " or of ".join(map(str, TURNS))
        raise ValueError(f"{file}: {found.name} is {found.type}, no text and no list of {known}; rename its fields")
    kind = pa.struct([(name, pa.string()) for name in pair])
    return pa.field(found.name, pa.list_(kind) if is_list else kind)


def named(found: pa.Schema) -> list[pa.Field]:
    """The field `id`, a number or a text, where there is one."""
    if "id" not in found.names:
        return []
    return [pa.field("id", pa.int64() if pa.types.is_integer(found.field("id").type) else pa.string())]


def messages(field: pa.Field, role: str) -> pl.Expr:
    """The column as messages; a text is a turn of `role`."""
    column = pl.col(field.name)
    if pa.types.is_string(field.type):
        return transcript_or_turn(column) if role == "user" else pair_format.message(role, column)
    if pa.types.is_struct(field.type):
        return pl.concat_list(message(column, field.type))
    return column.list.eval(message(pl.element(), field.type.value_type))


def message(turn: pl.Expr, kind: pa.DataType) -> pl.Expr:
    role, content = (turn.struct.field(field.name) for field in kind.fields)
    return pl.struct(role.replace(ROLES).alias("role"), content.alias("content"))


def transcript_or_turn(text: pl.Expr) -> pl.Expr:
    """A text that asks: one user turn, or a transcript with the assistant's turn open."""
    said = pair_format.messages(pair_format.turns(text).list.slice(1))
    is_open = (said.list.last().struct.field("role") == "assistant") & (said.list.last().struct.field("content") == "")
    asked = pl.when(is_open).then(said.list.head(said.list.len() - 1)).otherwise(said)
    return pl.when(text.str.starts_with("\n\nHuman:")).then(asked).otherwise(pair_format.message("user", text))


def asking(found: pa.Schema, file: Path) -> list[pa.Field]:
    """The fields of a question: the question itself, first, and what stands before and behind it.

    Raises ValueError for one that holds no conversation.
    """
    question = first_of(QUESTION, found)
    if not question:
        return []
    more = [name for name in (first_of(SYSTEM, found), "input") if name in found.names]
    texts = [pa.field(name, pa.string()) for name in more if releases.is_text(found.field(name).type)]
    return [declared(found.field(question), file), *texts]


def asked(fields: pa.Schema) -> pl.Expr:
    """What `asking` declared, as messages."""
    question = fields.field(first_of(QUESTION, fields))
    turns = messages(question, "user")
    if "input" in fields.names and pa.types.is_string(question.type):
        behind = pl.concat_str(pl.lit("\n\n"), pl.col("input"))
        more = pl.when(behind.str.strip_chars() != "").then(behind).otherwise(pl.lit(""))
        turns = pair_format.message("user", pl.concat_str(pl.col(question.name), more))
    system = first_of(SYSTEM, fields)
    before = [pair_format.message("system", pl.col(system).fill_null(""))] if system else []
    return conversation_rules.without_silence(pl.concat_list(*before, turns))
