"""Pairs in the forms that the ecosystem writes them in, told apart by their fields, as the one form of
stages/data/pair_format.py.

        chosen, rejected, prompt        texts, or lists of messages (TRL's explicit form)
        chosen, rejected                lists of messages, or texts, that share their beginning (TRL's implicit form)
        prompt or messages, response_a, response_b, preference (A, B or tie)
and, where they are there, id; margin, or chosen_score and rejected_score. The source `own` and `reward_bench` share
it.
Source  https://huggingface.co/docs/trl/dataset_formats; texts that share their beginning are cut at the last
        "\n\nAssistant:"
"""

from pathlib import Path

import polars as pl
import pyarrow as pa

from stages.data import pair_format, releases
from stages.messages import MESSAGES

SIDES, JUDGED = ["chosen", "rejected"], ["response_a", "response_b", "preference"]
OPTIONAL = {
    "messages": MESSAGES,
    "margin": pa.float64(),
    "chosen_score": pa.float64(),
    "rejected_score": pa.float64(),
}


def declared(found: pa.Schema, raw: Path) -> pa.Schema:
    """The fields that this form uses, as this module wants them. Raises ValueError for a form it does not know."""
    form = JUDGED if set(JUDGED) <= set(found.names) else SIDES
    if not set(form) <= set(found.names):
        forms = "chosen, rejected[, prompt] or prompt, response_a, response_b, preference"
        raise ValueError(f"{raw}: fields {found.names} are none of the forms {forms}; rename them")
    messages = form == SIDES and not releases.is_text(found.field("chosen").type)
    fields = [(name, MESSAGES if messages else pa.string()) for name in form]
    if "id" in found.names:
        fields.append(("id", pa.int64() if pa.types.is_integer(found.field("id").type) else pa.string()))
    if "prompt" in found.names:
        fields.append(("prompt", releases.text_or_messages(found.field("prompt").type)))
    return pa.schema([*fields, *((name, kind) for name, kind in OPTIONAL.items() if name in found.names)])


def prompt(fields: pa.Schema) -> pl.Expr:
    """The prompt where it is a field of its own: the messages before the text of the last turn."""
    if fields.get_field_index("messages") >= 0:
        whole = pl.col("messages")
        alone = pair_format.message("user", pl.col("prompt")) if fields.get_field_index("prompt") >= 0 else whole
        return pl.when(whole.list.len() > 0).then(whole).otherwise(alone)
    if releases.is_text(fields.field("prompt").type):
        return pair_format.message("user", pl.col("prompt"))
    return pl.col("prompt")


def judged(raw: pl.DataFrame, fields: pa.Schema) -> pl.DataFrame:
    """response_a, response_b, preference."""
    verdict, second = pl.col("preference"), pl.col("preference") == "B"
    chosen = pl.when(second).then("response_b").otherwise("response_a")
    rejected = pl.when(second).then("response_a").otherwise("response_b")
    return raw.select(
        "row",
        *kept(fields),
        prompt=prompt(fields),
        chosen=pair_format.message("assistant", chosen),
        rejected=pair_format.message("assistant", rejected),
        margin=pl.when(verdict == "tie").then(0.0),
        drop=pair_format.first_rule(label_out_of_range=~verdict.is_in(["A", "B", "tie"]).fill_null(False)),
    )


def sided(raw: pl.DataFrame, fields: pa.Schema) -> pl.DataFrame:
    """chosen, rejected and perhaps prompt."""
    texts, explicit = releases.is_text(fields.field("chosen").type), bool({"prompt", "messages"} & set(fields.names))
    if texts and explicit:
        sides = [pair_format.message("assistant", pl.col(side)) for side in SIDES]
    elif texts:
        raw = raw.with_columns(pair_format.turns(pl.col(side)).alias(side) for side in SIDES)
        sides = [pair_format.messages(pl.col(side).list.slice(1)) for side in SIDES]
    else:
        sides = [pl.col(side) for side in SIDES]
    raw = raw.with_columns(side.alias(name) for name, side in zip(SIDES, sides, strict=True))
    c, r = (pl.col(side) for side in SIDES)
    before, least = c.list.head(c.list.len() - 1), 1 if explicit else 2
    last_roles = [side.list.last().struct.field("role") for side in (c, r)]
    drop = pair_format.first_rule(
        no_answer=((c.list.len() < least) | (r.list.len() < least)).fill_null(True),
        context_differs=before != r.list.head(r.list.len() - 1),
        wrong_role=(last_roles[0] != "assistant") | (last_roles[1] != "assistant"),
    )
    context = pl.concat_list(prompt(fields), before) if explicit else before
    return raw.select("row", *kept(fields), prompt=context, chosen=c.list.tail(1), rejected=r.list.tail(1), drop=drop)


def kept(fields: pa.Schema) -> list[str]:
    return [name for name in ("id", "margin", "chosen_score", "rejected_score") if fields.get_field_index(name) >= 0]


def pairs(raw: pl.DataFrame, fields: pa.Schema, name: str) -> pl.DataFrame:
    made = judged(raw, fields) if fields.get_field_index("preference") >= 0 else sided(raw, fields)
    if "margin" not in made.columns:
        scored = {"chosen_score", "rejected_score"} <= set(made.columns)
        difference = pl.col("chosen_score") - pl.col("rejected_score")
        made = made.with_columns(margin=difference if scored else pl.lit(None, pl.Float64))
    number = pl.col("row").cast(pl.String)
    own_id = pl.coalesce(pl.col("id").cast(pl.String), number) if "id" in made.columns else number
    return made.select(
        pl.format("{}-{}", pl.lit(name), own_id).alias("id"),
        "prompt",
        "chosen",
        "rejected",
        "margin",
        "drop",
        chosen_finished=True,
        rejected_finished=True,
    )
