"""Read a raw release in batches: of preferences, demonstrations, prompts or evaluation questions.

A raw release is a file or a folder of .parquet, .jsonl or .jsonl.gz, or a JSON pin of a hub data set, or a folder of
pins:
    {"dataset": "Anthropic/hh-rlhf", "data_dirs": ["helpful-base"], "split": "train", "revision": "<40-digit commit>",
    "licence": "mit"}

A field that is gone or of another type, a file that is cut off, a hub that does not answer are errors; a line that is
no object is a drop, `not_json`.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from stages.data import jsonl

BATCH = 20_000  # rows
ROWS = (".parquet", ".jsonl", ".jsonl.gz")
SPLIT = re.compile(r"(train|test|valid|val|dev|eval)[a-z]*[-_.]", re.IGNORECASE)
"""How the files of a set's splits are called: train.jsonl, test-00000-of-00001.parquet, validation.jsonl."""
Batches = Iterator[tuple[pl.DataFrame, Counter]]


class Release(NamedTuple):
    """What a source knows of its raw set before reading it; `pairs` is the count of the paper's Table 5, `differs` why
    ours is another, if it is.
    """

    name: str
    fields: pa.Schema
    pairs: int | None = None
    differs: str = ""


def is_text(kind: pa.DataType) -> bool:
    """Texts of any size, written out or as a dictionary's numbers."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def written_out(table: pa.Table, fields: pa.Schema) -> pa.Table:
    """The table with texts in place of a dictionary's numbers."""
    for place, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(place, column.name, table[column.name].cast(fields.field(column.name).type))
    return table


def short(error: object) -> str:
    """The first 200 characters of an error, on one line."""
    return " ".join(str(error).split())[:200]


def fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column can stand for the declared one: more struct fields and wider numbers are welcome."""
    if pa.types.is_struct(wanted):
        return pa.types.is_struct(found) and all(
            found.get_field_index(field.name) >= 0 and fits(found.field(field.name).type, field.type)
            for field in wanted.fields
        )
    if pa.types.is_list(wanted):
        return (pa.types.is_list(found) or pa.types.is_large_list(found)) and fits(found.value_type, wanted.value_type)
    families = [pa.types.is_boolean, is_text, pa.types.is_integer]
    numbers = pa.types.is_floating(wanted) and (pa.types.is_floating(found) or pa.types.is_integer(found))
    return numbers or pa.types.is_null(found) or any(family(found) and family(wanted) for family in families)


def check_fields(release: Release, found: pa.Schema, where: str) -> None:
    """Raise ValueError for a field that is gone or of another type."""
    for field in release.fields:
        if found.get_field_index(field.name) < 0:
            rule = f"has no field {field.name!r}, only {found.names}"
            raise ValueError(f"{where}: {release.name} {rule}; its form has changed, pin the revision that had it")
        kind = found.field(field.name).type
        if not fits(kind, field.type):
            rule = f"is {kind}, not {field.type}"
            raise ValueError(f"{where}: {release.name}.{field.name} {rule}; pin the revision in which it was")


def read_pin(raw: Path) -> dict:
    """A pin. Raises ValueError unless it names data set, split and a 40-digit commit."""
    pin = json.loads(raw.read_text(encoding="utf-8"))
    if not isinstance(pin, dict):
        raise ValueError(f"{raw}: is no pin of a hub data set; rows come as .jsonl, .jsonl.gz or .parquet")
    if not re.fullmatch(r"[0-9a-f]{40}", pin.get("revision") or "") or not pin.get("dataset") or not pin.get("split"):
        rule = "must name dataset, split and the 40-digit commit as revision, so that the run can be repeated"
        raise ValueError(f"{raw}: {pin} {rule}; pin it")
    return pin


def hub_batches(release: Release, raw: Path) -> Iterator[pa.Table]:
    """The pinned data set, memory-mapped. Raises ValueError where the hub cannot be reached."""
    pin = read_pin(raw)
    which = f"{pin['dataset']} at {pin['revision']}"
    import datasets

    for folder in pin.get("data_dirs") or [None]:
        try:
            rows = datasets.load_dataset(
                pin["dataset"],
                pin.get("config"),
                data_dir=folder,
                data_files=pin.get("data_files"),
                split=pin["split"],
                revision=pin["revision"],
            )
        except OSError as error:  # no route, no such name, a hub that answers 500
            remedy = (
                "go online, or download it elsewhere and name its folder of .parquet or .jsonl files as this set's raw"
            )
            raise ValueError(f"{raw}: {which} cannot be fetched ({short(error)}); {remedy} in params.yaml") from error
        assert isinstance(rows, datasets.Dataset)
        check_fields(release, rows.features.arrow_schema, which)
        yield from rows.select_columns(release.fields.names or rows.column_names).with_format("arrow").iter(BATCH)


def parquet_batches(release: Release, file: Path) -> Iterator[pa.Table]:
    try:
        # what is buffered stays in memory until the file is closed: 1.4 KB a row
        content = pq.ParquetFile(file, pre_buffer=False)
        check_fields(release, content.schema_arrow, str(file))
        for batch in content.iter_batches(BATCH, columns=release.fields.names):
            yield written_out(pa.table(batch), release.fields)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{file}: not a whole parquet file ({short(error)}); fetch it again") from error


def line_by_line(release: Release, file: Path, first: int, lines: list[bytes]) -> tuple[pa.Table, Counter]:
    """The slow way, for a chunk with a bad line: lines that are no UTF-8, no object or hold half of a surrogate pair
    are drops, named with their line; a field of another type is an error with its line.
    """
    drops, records = Counter(), []
    for number, line in enumerate(lines, first):
        if not line.strip():
            continue
        record = jsonl.parsed(line)
        if record is None or not jsonl.can_be_written(record):
            rule = "not_json" if record is None else "lone_surrogate"
            drops[rule] += 1
            print(f"{file}:{number}: dropped, {rule}", flush=True)
            continue
        records.append(
            pa.table([column(release, file, number, record, field) for field in release.fields], release.fields)
        )
    return pa.concat_tables(records or [release.fields.empty_table()]), drops


def column(release: Release, file: Path, number: int, record: dict, field: pa.Field) -> pa.Array:
    """One field of a line. Raises ValueError for a value that is not of its type, or too large for it."""
    value = record.get(field.name)
    try:
        return pa.array([value], field.type)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        told = f"{field.name} = {short(repr(value))[:60]} is no {field.type}"
        raise ValueError(f"{file}:{number}: {release.name}: {told}; mend or delete the line") from error


def jsonl_batches(release: Release, file: Path) -> Iterator[tuple[pa.Table, Counter]]:
    options = pyarrow.json.ParseOptions(explicit_schema=release.fields, unexpected_field_behavior="ignore")
    for first, lines in jsonl.chunks(file):
        known = jsonl.opening(lines) if first == 1 else {}
        gone = [name for name in release.fields.names if first == 1 and name not in known]
        if gone:
            rule = f"has no field {gone[0]!r}, only {list(known)}"
            raise ValueError(f"{file}: {release.name} {rule}; its form has changed, or this is another file")
        text = b"".join(lines)
        try:
            text.decode()
            one_block = pyarrow.json.ReadOptions(block_size=len(text) + 1)
            yield pyarrow.json.read_json(pa.BufferReader(text), one_block, options), Counter()
        except (UnicodeDecodeError, pa.ArrowInvalid):
            yield line_by_line(release, file, first, lines)


def files(raw: Path) -> list[Path]:
    """The release's files, by name, or its pins where it has no rows of its own.

    Raises ValueError where there is nothing that can be read, or files that look like the splits of one set.
    """
    found = [raw] if raw.is_file() else sorted(f for f in raw.rglob("*") if f.is_file())
    rows, pins = [f for f in found if f.name.endswith(ROWS)], [f for f in found if f.suffix == ".json"]
    if bool(rows) == bool(pins):
        kinds = ", ".join(ROWS)
        told = f"{len(rows)} files of {kinds} and {len(pins)} .json pins"
        raise ValueError(f"{raw}: {told}; name a file, a folder of files or a folder of pins")
    splits = {match[1]: file for file in rows if (match := SPLIT.match(file.name))}
    if len(splits) > 1:
        told = " and ".join(str(file.relative_to(raw)) for file in splits.values())
        raise ValueError(f"{raw}: {told} look like splits of one set; name one of them as raw, or rename them")
    return rows or pins


def name(raw: Path, file: Path) -> str:
    """What a file of a release is called: its path in the release's folder, less its ending."""
    path = file.name if file == raw else str(file.relative_to(raw))
    return re.sub(r"(\.jsonl\.gz|\.jsonl|\.parquet|\.json)$", "", path)


def peek(raw: Path) -> pa.Schema:
    """The fields of the release's first file, or of the pinned data set.

    Raises ValueError where no line is an object.
    """
    first = files(raw)[0]
    if first.suffix == ".json":
        return next(hub_batches(Release(str(raw), pa.schema([])), first)).schema
    if first.suffix == ".parquet":
        try:
            return pq.read_schema(first)
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{first}: not a whole parquet file ({short(error)}); fetch it again") from error
    record = next((jsonl.opening(lines) for _, lines in jsonl.chunks(first)), {})
    if not record:
        raise ValueError(f"{first}: no line is a JSON object; is this the right file?")
    try:
        return pa.Table.from_pylist([record]).schema
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{first}: a field has values of several types ({short(error)}); mend the file") from error


def batches(release: Release, raw: Path) -> Batches:
    """Frames of the release's fields, `row`, the number of the raw row, and `file`; and what could not be read, by
    name.
    """
    row = 0
    for file, table, drops in tables(release, raw):
        frame = pl.DataFrame(pl.from_arrow(table)).with_row_index("row", row)
        row += len(frame)
        yield frame.with_columns(file=pl.lit(name(raw, file))), drops


def tables(release: Release, raw: Path) -> Iterator[tuple[Path, pa.Table, Counter]]:
    for file in files(raw):
        if file.name.endswith((".jsonl", ".jsonl.gz")):
            yield from ((file, table, drops) for table, drops in jsonl_batches(release, file))
        else:
            read = parquet_batches if file.suffix == ".parquet" else hub_batches
            yield from ((file, table, Counter()) for table in read(release, file))


def whole(frames: Batches) -> Batches:
    """All batches as one, for a rule that looks at more than one raw row."""
    every = list(frames)
    yield pl.concat([frame for frame, _ in every]), sum((drops for _, drops in every), Counter())
