"""What a file tells of itself without being read whole: rows and mean tokens of a table, the shape of a model.

The journal of what stages cost (spent.py) writes them down, `python -m stages.tools.plan` reads both.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

SAMPLE = 2_000
"""Rows of a table whose texts are measured; all of the quickstart's."""
BYTES_PER_TOKEN = 4.8
"""Of English text: SmolLM2's tokenizer takes 4.7 to 5.1 bytes of the quickstart's texts, by column."""
PER_MESSAGE = 5
"""Tokens that a chat template puts around a message: ChatML's <|im_start|>, role, newline, <|im_end|>, newline."""
DTYPE_BYTES = {"float32": 4, "bfloat16": 2}


class Table(NamedTuple):
    """Rows; mean tokens of a prompt with its template, and of one answer; how many rows share a prompt."""

    rows: int
    prompt: float = 0.0
    answer: float = 0.0
    group: float = 1.0


class Shape(NamedTuple):
    """A transformer's architecture; `weights` as counted in its files, None where that follows from the rest."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    context: int | None = None
    weights: int | None = None


def table(path: Path) -> Table | None:
    """A parquet file's facts, or of a folder of shards together; None of what is neither."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or files[0].suffix != ".parquet" or not files[0].exists():
        return None
    import pyarrow.parquet as pq

    rows = sum(pq.read_metadata(file).num_rows for file in files)
    with pq.ParquetFile(files[0]) as first:
        batch = next(first.iter_batches(SAMPLE), None)
    return Table(rows, *means(batch)) if batch else Table(rows)


def means(batch: Any) -> tuple[float, float, float]:
    """Mean tokens of a prompt and of one answer among some rows, and how many rows have the same id."""
    names = batch.schema.names
    prompt = tokens(batch["prompt"]) + PER_MESSAGE if "prompt" in names else 0.0  # and the header of the answer
    sides = ["token_ids"] if "token_ids" in names else ["completion", "chosen", "rejected"]
    answers = [tokens(batch[name]) for name in sides if name in names]
    if "tokens" in names:
        answers = [summed(batch["tokens"])]
    group = len(batch) / max(1, len(batch["id"].unique())) if "id" in names else 1.0
    return round(prompt, 1), round(sum(answers) / max(1, len(answers)), 1), round(group, 2)


def summed(column: Any) -> float:
    """Mean of a row's number, or of the sum of its numbers: an answer's tokens, or those of every turn."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = column.flatten() if pa.types.is_list(column.type) else column
    return (pc.sum(numbers).as_py() or 0) / max(1, len(column))  # pyright: ignore[reportAttributeAccessIssue]


def tokens(column: Any) -> float:
    """Mean tokens of a row: a list of ids, a text, or messages."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = max(1, len(column))
    if pa.types.is_list(column.type) and pa.types.is_integer(column.type.value_type):
        return len(column.flatten()) / rows
    around = 0
    if pa.types.is_list(column.type):
        messages = column.flatten()
        column, around = messages.field("content"), PER_MESSAGE * len(messages)
    size = pc.sum(pc.binary_length(column)).as_py() or 0  # pyright: ignore[reportAttributeAccessIssue]
    return (size / BYTES_PER_TOKEN + around) / rows


def shape(folder: Path) -> Shape | None:
    """Of a model folder; None where there is none, or one of another kind."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    config = config.get("text_config", config)
    return described(config, counted(folder)) if {"hidden_size", "num_hidden_layers"} <= set(config) else None


def described(config: dict[str, Any], weights: int | None = None) -> Shape:
    """The shape that a config.json gives."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    return Shape(
        layers=config["num_hidden_layers"],
        hidden=hidden,
        intermediate=config.get("intermediate_size") or 4 * hidden,
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or hidden // heads,
        vocabulary=config["vocab_size"],
        tied=config.get("tie_word_embeddings", False),
        context=config.get("max_position_embeddings"),
        weights=weights,
    )


def counted(folder: Path) -> int | None:
    """The numbers that a folder's safetensors files hold, by their headers alone; None where there is no such file."""
    files = sorted(folder.glob("*.safetensors"))
    return sum(map(numbers, files)) if files else None


def numbers(file: Path) -> int:
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def block(shape: Shape) -> int:
    """Weights of one layer that take part in products: queries, keys and values, output, the three of a gated MLP."""
    attention = shape.hidden * shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
    return attention + 3 * shape.hidden * shape.intermediate


def weights(shape: Shape) -> int:
    """All weights: as counted, or by formula, embeddings, blocks with two norms each, last norm, head."""
    if shape.weights is not None:
        return shape.weights
    embeddings = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    return embeddings + shape.layers * (block(shape) + 2 * shape.hidden) + shape.hidden
