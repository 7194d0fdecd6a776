"""Read a raw release of preferences in batches and write it in the one form that all sources share; every module in stages/sources goes through here.

A raw release is a file or a folder of .parquet, .jsonl or .jsonl.gz, or a JSON pin of a hub data set:
    {"dataset": "Anthropic/hh-rlhf", "data_dirs": ["helpful-base"], "split": "train", "revision": "<40-digit commit>", "licence": "mit"}

A source is a function from a batch of raw rows to a frame with SCHEMA's columns but `source`, and `drop`: the rule that refuses the row, or null.
It judges only what its release defines as no pair; what no release should hold (empty turns, duplicates, ...) is the filter's business.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
from tqdm import tqdm

BATCH = 20_000  # rows
CHUNK = 32 * 2**20  # bytes of JSON lines parsed at once
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [("id", pa.string()), ("source", pa.string()), ("prompt", MESSAGES), ("chosen", MESSAGES), ("rejected", MESSAGES)]
    + [("margin", pa.float64())]  # chosen's score less rejected's, in the source's own unit; 0 is a tie, null where no score is known
    + [("chosen_finished", pa.bool_()), ("rejected_finished", pa.bool_())]
)
Batches = Iterator[tuple[pl.DataFrame, Counter]]
Pairs = Callable[[pl.DataFrame], pl.DataFrame]


class Release(NamedTuple):
    """What a source knows of its raw set before reading it; `pairs` is the count of the paper's Table 5, `differs` why ours is another, if it is."""

    name: str
    fields: pa.Schema
    pairs: int | None = None
    differs: str = ""


def message(role: str, content: pl.Expr) -> pl.Expr:
    """A list of one message."""
    return pl.concat_list(pl.struct(pl.lit(role).alias("role"), content.alias("content")))


def first_rule(**rules: pl.Expr) -> pl.Expr:
    """The name of the first rule that holds, null where none does: a `drop` column."""
    return pl.coalesce(*(pl.when(broken).then(pl.lit(name)) for name, broken in rules.items()), pl.lit(None, pl.String))


TURN = "\ue000"  # of the private use area: stands before every turn while a transcript is cut


def turns(transcript: pl.Expr) -> pl.Expr:
    """A transcript "\\n\\nHuman: ...\\n\\nAssistant: ..." as a list: what stands before the first turn, then each turn as H or A and its text."""
    marked = transcript.str.replace_all("\n\nHuman:", f"{TURN}H", literal=True).str.replace_all("\n\nAssistant:", f"{TURN}A", literal=True)
    return marked.str.split(TURN)


def messages(turns: pl.Expr) -> pl.Expr:
    """Turns as messages."""
    turn = pl.element()
    role = pl.when(turn.str.starts_with("H")).then(pl.lit("user")).otherwise(pl.lit("assistant"))
    return turns.list.eval(pl.struct(role.alias("role"), turn.str.slice(1).str.strip_chars().alias("content")))


def all_pairs(name: str, answers: pl.DataFrame) -> pl.DataFrame:
    """Every two answers to one prompt, the higher score chosen: from `row`, `prompt` (messages), `k` (the answer's number), `text`, `score` (null: not rated).

    A prompt with fewer than two answers is one row with a drop of that name; a tie has margin 0 and is the filter's.
    """
    both = answers.join(answers.drop("prompt"), on="row", suffix="_b", maintain_order="left_right").filter(pl.col("k") < pl.col("k_b"))
    first = pl.col("score") >= pl.col("score_b")
    better, worse = (pl.when(side).then("text").otherwise("text_b") for side in (first, ~first))
    made = both.select(
        id=pl.format(f"{name}-{{}}-{{}}-{{}}", "row", "k", "k_b"), prompt="prompt", chosen=message("assistant", better), rejected=message("assistant", worse),
        margin=(pl.col("score") - pl.col("score_b")).abs(), chosen_finished=True, rejected_finished=True,
        drop=first_rule(not_rated=pl.col("score").is_null() | pl.col("score_b").is_null()),
    )  # fmt: skip
    single = answers.join(both, on="row", how="anti").unique("row", keep="first", maintain_order=True)
    none = pl.lit(None, made.schema["chosen"])
    alone = single.select(
        id=pl.format(f"{name}-{{}}", "row"), prompt="prompt", chosen=none, rejected=none, margin=pl.lit(None, pl.Float64),
        chosen_finished=True, rejected_finished=True, drop=pl.lit("too_few_answers"),
    )  # fmt: skip
    return pl.concat([made, alone])


def fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column can stand for the declared one: more struct fields and wider numbers are welcome."""
    if pa.types.is_struct(wanted):
        return pa.types.is_struct(found) and all(found.get_field_index(f.name) >= 0 and fits(found.field(f.name).type, f.type) for f in wanted.fields)
    if pa.types.is_list(wanted):
        return (pa.types.is_list(found) or pa.types.is_large_list(found)) and fits(found.value_type, wanted.value_type)
    families = [pa.types.is_boolean, lambda t: pa.types.is_string(t) or pa.types.is_large_string(t), pa.types.is_integer]
    numbers = pa.types.is_floating(wanted) and (pa.types.is_floating(found) or pa.types.is_integer(found))
    return numbers or pa.types.is_null(found) or any(family(found) and family(wanted) for family in families)


def check_fields(release: Release, found: pa.Schema, where: str) -> None:
    """Raise ValueError for a field that is gone or of another type."""
    for field in release.fields:
        if found.get_field_index(field.name) < 0:
            raise ValueError(f"{where}: {release.name} has no field {field.name!r}, only {found.names}; its form has changed, pin the revision that had it")
        if not fits(found.field(field.name).type, field.type):
            raise ValueError(f"{where}: {release.name}.{field.name} is {found.field(field.name).type}, not {field.type}; pin the revision in which it was")


def read_pin(raw: Path) -> dict:
    """A pin. Raises ValueError unless it names data set, split and a 40-digit commit."""
    pin = json.loads(raw.read_text())
    if not re.fullmatch(r"[0-9a-f]{40}", pin.get("revision") or "") or not pin.get("dataset") or not pin.get("split"):
        raise ValueError(f"{raw}: {pin} must name dataset, split and the 40-digit commit as revision, so that the run can be repeated; pin it")
    return pin


def hub_batches(release: Release, raw: Path) -> Iterator[pa.Table]:
    """The pinned data set, memory-mapped. Raises ValueError where the hub cannot be reached."""
    pin = read_pin(raw)
    import datasets

    for folder in pin.get("data_dirs") or [None]:
        try:
            rows = datasets.load_dataset(pin["dataset"], pin.get("config"), data_dir=folder, split=pin["split"], revision=pin["revision"])
        except OSError as error:  # no route, no such name, a hub that answers 500
            raise ValueError(
                f"{raw}: {pin['dataset']} at {pin['revision']} cannot be fetched ({' '.join(str(error).split())[:200]}); go online, or download it "
                f"elsewhere and name its folder of .parquet or .jsonl files as this set's raw in params.yaml"
            ) from error
        assert isinstance(rows, datasets.Dataset)
        check_fields(release, rows.features.arrow_schema, f"{pin['dataset']} at {pin['revision']}")
        yield from rows.select_columns(release.fields.names or rows.column_names).with_format("arrow").iter(BATCH)


def parquet_batches(release: Release, file: Path) -> Iterator[pa.Table]:
    try:
        content = pq.ParquetFile(file)
        check_fields(release, content.schema_arrow, str(file))
        for batch in content.iter_batches(BATCH, columns=release.fields.names):
            yield pa.table(batch)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{file}: not a whole parquet file ({' '.join(str(error).split())[:200]}); fetch it again") from error


def chunks(file: Path) -> Iterator[tuple[int, list[bytes]]]:
    """(number of the first line, lines) of a JSONL file, about CHUNK bytes at a time. Raises ValueError for a file that is cut off."""
    number, last = 1, b"\n"
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            while lines := stream.readlines(CHUNK):
                yield number, lines
                number, last = number + len(lines), lines[-1]
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{file}: {error}; the file is cut off or damaged, copy it again") from error
    if not last.endswith(b"\n") and not parsed(last):
        raise ValueError(f"{file}: the last line has no end, the file is cut off; copy it again (it has {number - 1:,} lines)")


def parsed(line: bytes) -> dict | None:
    """One line as an object; None where it is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def line_by_line(release: Release, file: Path, first: int, lines: list[bytes]) -> tuple[pa.Table, Counter]:
    """The slow way, for a chunk with a bad line: lines that are no UTF-8 or no object are drops, a field of another type is an error with its line."""
    drops, records = Counter(), []
    for number, line in enumerate(lines, first):
        record = parsed(line)
        if record is None:
            drops["not_json"] += 1
            continue
        try:
            records.append(pa.Table.from_pylist([record], release.fields))
        except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError) as error:
            raise ValueError(f"{file}:{number}: {release.name}: {' '.join(str(error).split())[:200]}; mend or delete the line") from error
    return pa.concat_tables(records or [release.fields.empty_table()]), drops


def jsonl_batches(release: Release, file: Path) -> Iterator[tuple[pa.Table, Counter]]:
    options = pyarrow.json.ParseOptions(explicit_schema=release.fields, unexpected_field_behavior="ignore")
    for first, lines in chunks(file):
        known = opening(lines) if first == 1 else {}
        gone = [name for name in release.fields.names if first == 1 and name not in known]
        if gone:
            raise ValueError(f"{file}: {release.name} has no field {gone[0]!r}, only {list(known)}; its form has changed, or this is another file")
        text = b"".join(lines)
        try:
            text.decode()
            yield pyarrow.json.read_json(pa.BufferReader(text), pyarrow.json.ReadOptions(block_size=len(text) + 1), options), Counter()
        except (UnicodeDecodeError, pa.ArrowInvalid):
            yield line_by_line(release, file, first, lines)


def files(raw: Path) -> list[Path]:
    """The release's files, by name. Raises ValueError where there is none that can be read."""
    found = [raw] if raw.is_file() else sorted(f for f in raw.rglob("*") if f.is_file())
    known = [f for f in found if f.name.endswith((".parquet", ".jsonl", ".jsonl.gz"))]
    if not known:
        raise ValueError(f"{raw}: no .parquet, .jsonl or .jsonl.gz file; name a file, a folder of them or a JSON pin of a hub data set")
    return known


def opening(lines: list[bytes]) -> dict:
    """Every field that the first thousand objects have, with its first value that is not null."""
    found: dict = {}
    for record in filter(None, map(parsed, lines[:1000])):
        found |= {name: value for name, value in record.items() if found.get(name) is None}
    return found


def peek(raw: Path) -> pa.Schema:
    """The fields of the release's first file, or of the pinned data set. Raises ValueError where no line is an object."""
    if raw.suffix == ".json":
        return next(hub_batches(Release(str(raw), pa.schema([])), raw)).schema
    first = files(raw)[0]
    if first.suffix == ".parquet":
        return pq.read_schema(first)
    record = next((opening(lines) for _, lines in chunks(first)), {})
    if not record:
        raise ValueError(f"{first}: no line is a JSON object; is this the right file?")
    return pa.Table.from_pylist([record]).schema


def batches(release: Release, raw: Path) -> Batches:
    """Frames of the release's fields and `row`, the number of the raw row, and what could not be read, by name."""
    row = 0
    for table, drops in tables(release, raw):
        frame = pl.DataFrame(pl.from_arrow(table)).with_row_index("row", row)
        row += len(frame)
        yield frame, drops


def tables(release: Release, raw: Path) -> Iterator[tuple[pa.Table, Counter]]:
    if raw.suffix == ".json":
        yield from ((table, Counter()) for table in hub_batches(release, raw))
        return
    for file in files(raw):
        yield from ((t, Counter()) for t in parquet_batches(release, file)) if file.suffix == ".parquet" else jsonl_batches(release, file)


def whole(frames: Batches) -> Batches:
    """All batches as one, for a rule that looks at more than one raw row."""
    every = list(frames)
    yield pl.concat([frame for frame, _ in every]), sum((drops for _, drops in every), Counter())


def prepare(release: Release, frames: Batches, pairs: Pairs, name: str, raw: Path, preferences: Path, metrics: Path) -> None:
    """Write the pairs that `pairs` makes of the raw rows, and the account; `name` is the set's in the mix. Raises ValueError where there is no pair."""
    read, out, drops = 0, 0, Counter()
    with pq.ParquetWriter(preferences, SCHEMA) as writer, tqdm(desc=f"prepare {name}", unit="row", unit_scale=True) as bar:
        for frame, unread in frames:
            bar.update(len(frame))
            try:
                made = pairs(frame)
            except ValueError as error:
                raise ValueError(f"{raw}: {error}") from error
            kept = made.filter(pl.col("drop").is_null()).with_columns(pl.lit(name).alias("source")).select(SCHEMA.names)
            read, out, drops = read + len(frame) + unread.total(), out + len(kept), drops + unread + Counter(made["drop"].drop_nulls().to_list())
            writer.write_table(kept.to_arrow().cast(SCHEMA))
    if not out:
        raise ValueError(f"{raw}: {read:,} rows of {release.name}, no pair; drops {dict(drops)}")
    metrics.write_text(
        json.dumps(account(release, raw) | {"rows_read": read, "rows_in": out + drops.total(), "rows_out": out, "drops": drops}, indent=2) + "\n"
    )
    print(f"prepare {name}: {read:,} rows -> {out:,} pairs, drops {dict(drops)}")


def account(release: Release, raw: Path) -> dict[str, object]:
    """Where the rows come from, for the audit."""
    pin = read_pin(raw) if raw.suffix == ".json" else {"dataset": str(raw), "revision": None, "licence": None}
    return {"dataset": pin["dataset"], "revision": pin["revision"], "licence": pin.get("licence"), "paper_pairs": release.pairs, "differs": release.differs}
