"""Add one set of preferences to the mix: drop the pairs that teach nothing, teach wrongly, or are there already.

Reads   preferences: a set (SCHEMA of stages/data/pair_format.py); prepared: what `prepare` counted of it; before,
        before_account: the mix so far and its account; benchmarks: phrase (uint64), and its number of words reserved:
        files of prompts that nothing may train on (test, validation); model: the base model, for its tokenizer and
        template; `name` of the set; `min_margin`, in the set's own unit, over 0 only where margins are known; `rows`
        taken of it, a number or a share under 1, 0 for all
Writes  mixed: the mix so far and what is kept of the set, in this order. account: {set: {prepared, rows_in, rows_out,
        drops}} of every set so far
Params  filter.max_tokens of prompt and longer answer; filter.near_duplicates, from which similarity on, 0 to look for
        none
Source  "remove empty rounds, incorrect labels, small margins", RLHF Workflow, arXiv 2405.07863, section 2

Of two equal pairs the first stays; of a contradiction none does, since none is known to be right. Texts are read in
batches and never held together: of each row its fault and three hashes stay.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from tqdm import tqdm

from stages.data import conversation_rules, near_duplicates, overlap, pair_format

RULES = [
    *conversation_rules.RULES,
    "identical_sides",
    "margin_unknown",
    "tie",
    "small_margin",
    "over_max_tokens",
    "in_test",
    "in_benchmark",
    "contradictory",
    "duplicate",
    "near_duplicate",
    "over_rows",
]


def frames(path: Path, template: conversation_rules.Template) -> Iterator[pl.DataFrame]:
    """The rows, a batch at a time, their prompts as the template takes them."""
    fitted = conversation_rules.fitted(pl.col("prompt"), template)
    for batch in pair_format.stored(path):
        yield pl.DataFrame(pl.from_arrow(batch)).with_columns(prompt=fitted)


def with_bar(path: Path, template: conversation_rules.Template) -> Iterator[pl.DataFrame]:
    with tqdm(total=pq.read_metadata(path).num_rows, desc=path.stem, unit="row", unit_scale=True) as bar:
        for frame in frames(path, template):
            yield frame
            bar.update(len(frame))


def own_fault(min_margin: float, template: conversation_rules.Template) -> pl.Expr:
    """The rule that a row breaks by itself, null where none."""
    return pair_format.first_rule(
        **conversation_rules.broken("chosen", "rejected", template=template),
        identical_sides=pair_format.answer("chosen") == pair_format.answer("rejected"),
        margin_unknown=pl.col("margin").is_null() & (min_margin > 0),
        tie=pl.col("margin") == 0,
        small_margin=pl.col("margin") < min_margin,
    )


def keys() -> list[pl.Expr]:
    """Hashes of what makes a pair: prompt, chosen and rejected answer."""
    return [
        overlap.prompt_hash().alias("p"),
        pair_format.answer("chosen").hash(seed=2).alias("c"),
        pair_format.answer("rejected").hash(seed=2).alias("r"),
    ]


def too_long(frame: pl.DataFrame, tokenizer: Any, max_tokens: int) -> np.ndarray:
    """Rows (N,) bool whose prompt and longer answer exceed max_tokens.

    A token has a byte at least, so most texts need no tokenizer.
    """
    parts = {"p": overlap.text("prompt"), "c": pair_format.answer("chosen"), "r": pair_format.answer("rejected")}
    texts = frame.select(**parts).fill_null("")
    answer_bytes = pl.max_horizontal(pl.col("c", "r").str.len_bytes())
    sizes = texts.select(pl.col("p").str.len_bytes() + answer_bytes).to_series().to_numpy()
    long = np.zeros(len(frame), bool)
    for i in np.flatnonzero(sizes > max_tokens):
        lengths = [len(e.ids) for e in tokenizer.encode_batch(list(texts.row(i)), add_special_tokens=False)]
        long[i] = lengths[0] + max(lengths[1:]) > max_tokens
    return long


def judge(
    preferences: Path, min_margin: float, max_tokens: int, model: Path, reserved: list[Path], benchmarks: Path
) -> pl.DataFrame:
    """Of every row its id, set, fault and keys, in order."""
    from tokenizers import Tokenizer

    tokenizer, phrases = Tokenizer.from_file(str(model / "tokenizer.json")), overlap.read_phrases(benchmarks)
    tests = overlap.questions(reserved).implode()
    light = []
    template = conversation_rules.read(model)
    for frame in with_bar(preferences, template):
        found = {
            "over_max_tokens": pl.Series(too_long(frame, tokenizer, max_tokens)),
            "in_test": overlap.question_hash().is_in(tests),
        }
        found["in_benchmark"] = pl.Series(overlap.holds(frame, phrases))
        fault = pl.coalesce(
            own_fault(min_margin, template), *(pl.when(hit).then(pl.lit(rule)) for rule, hit in found.items())
        )
        light.append(frame.select("id", "source", fault.alias("fault"), *keys()))
    return pl.concat(light)


def compare(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with the faults that show only beside other rows: the pair again, or with its sides turned round."""
    sound = rows.with_row_index("at").filter(pl.col("fault").is_null())
    turned = sound.select("p", c="r", r="c").unique()
    wrong = sound.join(turned, on=["p", "c", "r"], how="semi")["at"].implode()
    again = sound.filter(~pl.struct("p", "c", "r").is_first_distinct())["at"].implode()
    at = pl.int_range(pl.len(), dtype=pl.get_index_type())
    found = pl.when(at.is_in(wrong)).then(pl.lit("contradictory")).when(at.is_in(again)).then(pl.lit("duplicate"))
    return rows.with_columns(fault=pl.coalesce("fault", found))


def cap(rows: pl.DataFrame, name: str, most: float) -> pl.DataFrame:
    """At most so many of the set's sound rows, or such a share of them: those whose ids come first by hash."""
    mine = rows.with_row_index("at").filter(pl.col("fault").is_null() & (pl.col("source") == name))
    number = math.ceil(round(most * len(mine), 6)) if most < 1 else int(most)
    over = mine.sort(pl.col("id").hash(seed=4), "id")["at"].slice(number or len(mine)).implode()
    at = pl.int_range(pl.len(), dtype=pl.get_index_type())
    return rows.with_columns(fault=pl.coalesce("fault", pl.when(at.is_in(over)).then(pl.lit("over_rows"))))


def accounts(rows: pl.DataFrame, name: str, prepared: dict, before: dict[str, dict]) -> dict[str, dict]:
    """Rows in, rows out and drops of every set; rows that this set has shown to be contradictory leave an earlier
    set's account.
    """
    own = {
        "prepared": prepared,
        "rows_in": rows.filter(pl.col("source") == name).height,
        "drops": dict.fromkeys(RULES, 0),
    }
    told = {source: account | {"rows_out": 0} for source, account in {**before, name: own}.items()}
    for source, fault, count in rows.group_by("source", "fault").len().iter_rows():
        if fault:
            told[source]["drops"][fault] += count
        else:
            told[source]["rows_out"] = count
    return told


def kept(parts: list[tuple[Path, np.ndarray]], template: conversation_rules.Template) -> Iterator[pl.DataFrame]:
    """The rows (N,) bool of each file, in order."""
    for file, keep in parts:
        start = 0
        for frame in frames(file, template):
            yield frame.filter(keep[start : start + len(frame)])
            start += len(frame)


def nearly_again(
    rows: pl.DataFrame, files: list[Path], threshold: float, template: conversation_rules.Template
) -> pl.DataFrame:
    """The rows with one more fault: nearly the same as an earlier row. `files` hold the rows, in order."""
    sound = rows["fault"].is_null()
    ends = np.cumsum([pq.read_metadata(file).num_rows for file in files])
    parts = list(zip(files, np.split(sound.to_numpy(), ends[:-1]), strict=True))
    twice = [kept(parts, template) for _ in range(2)]
    found = np.zeros(len(rows), bool)
    found[np.flatnonzero(sound)] = near_duplicates.later_ones(twice[0], twice[1], threshold)
    return rows.with_columns(fault=pl.coalesce("fault", pl.when(pl.Series(found)).then(pl.lit("near_duplicate"))))


def check_ids(rows: pl.DataFrame, where: str) -> None:
    """Raise ValueError for an id that more than one kept row has."""
    twice = rows.filter(pl.col("fault").is_null()).filter(pl.col("id").is_duplicated())["id"]
    if len(twice):
        rule = f"stands in {where} more than once, as do {twice.n_unique() - 1} others"
        raise ValueError(f"id {twice[0]!r} {rule}; an id names one pair, rename them")


def main(
    params: Any,
    name: str,
    min_margin: float,
    rows: float,
    preferences: Path,
    prepared: Path,
    before: Path,
    before_account: Path,
    benchmarks: Path,
    reserved: list[Path],
    model: Path,
    *,
    mixed: Path,
    account: Path,
) -> None:
    template, no_fault = conversation_rules.read(model), pl.lit(None, pl.String).alias("fault")
    old = [frame.select("id", "source", no_fault, *keys()) for frame in with_bar(before, template)]
    new = judge(preferences, min_margin, params.filter.max_tokens, model, reserved, benchmarks)
    judged = compare(pl.concat([*old, new]))
    if params.filter.near_duplicates:
        judged = nearly_again(judged, [before, preferences], params.filter.near_duplicates, template)
    check_ids(judged, f"{preferences} or {before}")
    judged = cap(judged, name, rows)
    made, so_far = (json.loads(file.read_text(encoding="utf-8")) for file in (prepared, before_account))
    told = accounts(judged, name, made, so_far)
    drops = {rule: count for rule, count in told[name]["drops"].items() if count}
    if not told[name]["rows_out"]:
        remedy = "take the set out of the mix or loosen its rules"
        raise ValueError(f"{preferences}: none of {len(new):,} pairs is kept, drops {drops}; {remedy}")
    keep, size = judged["fault"].is_null().to_numpy(), len(judged) - len(new)
    with pq.ParquetWriter(mixed, pair_format.SCHEMA) as writer:
        for frame in kept([(before, keep[:size]), (preferences, keep[size:])], template):
            writer.write_table(frame.to_arrow().cast(pair_format.SCHEMA))
    account.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print(f"filter {name}: {len(new):,} pairs -> {told[name]['rows_out']:,}, drops {drops}; {keep.sum():,} in the mix")
