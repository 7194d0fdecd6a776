"""Pairs in the forms that the ecosystem writes them in, told apart by their fields, as the one form of
stages/data/pair_format.py.

        chosen, rejected, QUESTION           the answers; or whole conversations, which hold the question already
        chosen, rejected                     conversations that share their beginning (TRL's implicit form), as lists or
                                             as transcripts, cut at the last "\n\nAssistant:"
        chosen, rejected, conversations      ShareGPT's preferences
        QUESTION or messages, response_a, response_b, preference (A, B or tie)
and, where they are there, id; margin, or a score of each side under one of the names of SCORES. A conversation or a
turn may be written in any of the ways of stages/data/dialogue.py. The source `own` and `reward_bench` share it.
Source  https://huggingface.co/docs/trl/dataset_formats; HuggingFaceH4/ultrafeedback_binarized (score_chosen, and the
        question in `prompt`, in both sides and in `messages`, which is not read there)
"""

from pathlib import Path

import polars as pl
import pyarrow as pa

from stages.data import conversation_rules, dialogue, pair_format

SIDES, JUDGED = ["chosen", "rejected"], ["response_a", "response_b", "preference"]
SCORES = ["{}_score", "score_{}", "{}_rating", "rating_{}", "{}-score", "{}-rating"]
FORMS = (
    f"chosen, rejected[, {' | '.join(dialogue.QUESTION)} | conversations] or "
    f"{' | '.join(dialogue.QUESTION)} | messages, response_a, response_b, preference"
)


def declared(found: pa.Schema, raw: Path) -> pa.Schema:
    """The fields that this form uses, as this module wants them. Raises ValueError for a form it does not know."""
    form = JUDGED if set(JUDGED) <= set(found.names) else SIDES
    talk = {"messages"} if form == JUDGED else {"conversations"}
    question = dialogue.asking(found, raw)
    whole = [dialogue.declared(found.field(name), raw) for name in sorted(talk & set(found.names))]
    if not set(form) <= set(found.names) or (form == JUDGED and not question + whole):
        raise ValueError(f"{raw}: fields {found.names} are none of the forms {FORMS}; rename them")
    sides = [dialogue.declared(found.field(name), raw) for name in SIDES] if form == SIDES else []
    texts = [pa.field(name, pa.string()) for name in JUDGED] if form == JUDGED else []
    numbers = [pa.field(name, pa.float64()) for name in scored(found)]
    return pa.schema([*sides, *texts, *question, *whole, *numbers, *dialogue.named(found)])


def scored(found: pa.Schema) -> list[str]:
    """The field of the margin, or those of the sides' scores; none where there are none."""
    if "margin" in found.names:
        return ["margin"]
    known = [[name.format(side) for side in SIDES] for name in SCORES]
    return next((names for names in known if set(names) <= set(found.names)), [])


def margin(fields: pa.Schema) -> pl.Expr:
    names = scored(fields)
    if len(names) < 2:
        return pl.col("margin") if names else pl.lit(None, pl.Float64)
    return pl.col(names[0]) - pl.col(names[1])


def given(fields: pa.Schema) -> pl.Expr | None:
    """What stands before the answers in fields of its own; `messages` and `conversations` before a lone question."""
    question = dialogue.asked(fields) if dialogue.first_of(dialogue.QUESTION, fields) else None
    whole = dialogue.first_of(["messages", "conversations"], fields)
    if not whole:
        return question
    said = dialogue.messages(fields.field(whole), "user")
    return said if question is None else pl.when(said.list.len() > 0).then(said).otherwise(question)


def judged(raw: pl.DataFrame, fields: pa.Schema) -> pl.DataFrame:
    """response_a, response_b, preference."""
    verdict, second = pl.col("preference"), pl.col("preference") == "B"
    chosen = pl.when(second).then("response_b").otherwise("response_a")
    rejected = pl.when(second).then("response_a").otherwise("response_b")
    return raw.with_columns(
        prompt=given(fields),
        chosen=pair_format.message("assistant", chosen),
        rejected=pair_format.message("assistant", rejected),
        margin=pl.when(verdict == "tie").then(0.0),
        drop=pair_format.first_rule(label_out_of_range=~verdict.is_in(["A", "B", "tie"]).fill_null(False)),
    )


def context(asked: pl.Expr, before: pl.Expr) -> pl.Expr:
    """The prompt, from the field that asks and from what the sides hold before their answers.

    The longer of the two where the latter holds the question too, both where the former ends with an answer; null where
    it is neither, since nobody could say which is meant.
    """
    last = asked.list.last().struct
    texts = before.list.eval(conversation_rules.SAID.field("content").str.strip_chars())
    holds = texts.list.contains(last.field("content").str.strip_chars())
    longer = pl.when(before.list.len() >= asked.list.len()).then(before).otherwise(asked)
    goes_on = (last.field("role") == "assistant") & (before.list.first().struct.field("role") == "user")
    both = pl.when(holds).then(longer).when(goes_on).then(asked.list.concat(before))
    return pl.when(before.list.len() == 0).then(asked).when(asked.list.len() > 0).then(both).otherwise(before)


def sided(raw: pl.DataFrame, fields: pa.Schema) -> pl.DataFrame:
    """chosen, rejected and perhaps a question."""
    question = given(fields)
    transcripts = question is None and pa.types.is_string(fields.field("chosen").type)
    if transcripts:
        raw = raw.with_columns(pair_format.turns(pl.col(side)).alias(side) for side in SIDES)
        sides = [pair_format.messages(pl.col(side).list.slice(1)) for side in SIDES]
    else:
        sides = [dialogue.messages(fields.field(side), "assistant") for side in SIDES]
    nothing = pl.lit([], pl.List(pl.Struct({"role": pl.String, "content": pl.String})))
    raw = raw.with_columns(asked=nothing if question is None else question, chosen=sides[0], rejected=sides[1])
    c, r = (pl.col(side) for side in SIDES)
    before, least = c.list.head(c.list.len() - 1), 2 if question is None else 1
    last_roles = [side.list.last().struct.field("role") for side in (c, r)]
    raw = raw.with_columns(prompt=context(pl.col("asked"), before))
    drop = pair_format.first_rule(
        no_answer=((c.list.len() < least) | (r.list.len() < least)).fill_null(True),
        context_differs=before != r.list.head(r.list.len() - 1),
        wrong_role=(last_roles[0] != "assistant") | (last_roles[1] != "assistant"),
        prompt_differs=pl.col("prompt").is_null() & (pl.col("asked").list.len() > 0),
    )
    return raw.with_columns(drop=drop, chosen=c.list.tail(1), rejected=r.list.tail(1), margin=margin(fields))


def pairs(raw: pl.DataFrame, fields: pa.Schema, name: str) -> pl.DataFrame:
    made = judged(raw, fields) if fields.get_field_index("preference") >= 0 else sided(raw, fields)
    number = pl.col("row").cast(pl.String)
    own_id = pl.coalesce(pl.col("id").cast(pl.String), number) if "id" in raw.columns else number
    return made.select(
        pl.format("{}-{}", pl.lit(name), own_id).alias("id"),
        conversation_rules.without_silence(pl.col("prompt")).alias("prompt"),
        "chosen",
        "rejected",
        "margin",
        "drop",
        chosen_finished=True,
        rejected_finished=True,
    )
