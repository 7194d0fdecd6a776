"""Rows as token ids on disk: the same as in memory, in order, made once, whoever makes them."""

import multiprocessing
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.training import checkpoints, tokens

SCHEMA = pa.schema({"ids": tokens.IDS})


def sort(tokenizer: Any, row: dict, log: Path | None = None) -> tuple[str, dict]:
    """Words by the number of their letters; long ones have no place, a number is no word."""
    if log is not None:
        with log.open("a", encoding="utf-8") as file:
            file.write(row["word"] + "\n")
    if row["word"].isdigit():
        raise ValueError(f"row {row['word']} is no word; mend it")
    name = ("even", "odd")[len(row["word"]) % 2]
    return ("long", {}) if len(row["word"]) > 4 else (name, {"ids": [ord(letter) for letter in row["word"]]})


def batches(words: list[str], size: int) -> list[pa.RecordBatch]:
    return [pa.RecordBatch.from_pylist([{"word": w} for w in words[k : k + size]]) for k in range(0, len(words), size)]


def told(found: tokens.Parts) -> tuple[list[str], list[str], dict[str, int]]:
    even, odd = (["".join(map(chr, ids)) for ids in found.sets[name]["ids"]] for name in ("even", "odd"))
    return even, odd, found.drops


@given(st.lists(st.text("abc", min_size=1, max_size=6), max_size=40), st.integers(1, 50), st.integers(1, 9))
def test_every_row_comes_into_its_part_in_order_or_is_counted(tiny_model, words, number, size):
    found = tokens.once(batches(words, size), number, tiny_model, sort, {"even": SCHEMA, "odd": SCHEMA})
    used = words[:number]
    short = [word for word in used if len(word) <= 4]
    even, odd, drops = told(found)
    assert even == [word for word in short if len(word) % 2 == 0]
    assert odd == [word for word in short if len(word) % 2]
    assert drops == ({"long": len(used) - len(short)} if len(used) > len(short) else {})


def made(model: Path, log: Path, ends: Any) -> None:
    parts = {"even": SCHEMA, "odd": SCHEMA}
    ends.send(told(tokens.once(batches(["ab", "a", "abcde"], 2), 3, model, partial(sort, log=log), parts)))


def test_the_first_process_makes_them_and_the_others_read(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("STAGE_SCRATCH", str(tmp_path / "scratch"))
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(3)]
    running = [context.Process(target=made, args=(tiny_model, tmp_path / "log", other)) for _, other in pipes]
    for process in running:
        process.start()
    assert [ends.recv() for ends, _ in pipes] == [(["ab"], ["a"], {"long": 1})] * 3
    for process in running:
        process.join()
    assert (tmp_path / "log").read_text() == "ab\na\nabcde\n"
    never = iter(lambda: pytest.fail("read again"), None)
    again = tokens.once(never, 3, tiny_model, sort, {"even": SCHEMA, "odd": SCHEMA})  # type: ignore[arg-type]
    assert told(again) == (["ab"], ["a"], {"long": 1})


def test_many_rows_are_shared_among_the_cores_and_a_bad_one_is_named(tiny_model, monkeypatch):
    monkeypatch.setattr(tokens, "ALONE", 10)
    monkeypatch.setattr(tokens, "BATCH", 7)
    words = ["ab", "abc", "abcdef"] * 50
    parts = {"even": SCHEMA, "odd": SCHEMA}
    assert told(tokens.once(batches(words, 20), 150, tiny_model, sort, parts)) == (
        ["ab"] * 50,
        ["abc"] * 50,
        {"long": 50},
    )
    with pytest.raises(ValueError, match="row 7 is no word; mend it"):
        tokens.once(batches([*words, "7"], 20), 151, tiny_model, sort, parts)


def test_the_next_checkpoint_waits_for_its_minutes_and_until_the_last_one_cost_a_twentieth():
    clock = checkpoints.Clock(minutes=2, now=1000.0)
    assert not clock.is_due(1119.0) and clock.is_due(1120.0)
    clock.saved(1120.0, 1150.0)  # 30 s, so 600 s of training before the next
    assert not clock.is_due(1749.0) and clock.is_due(1750.0)
    clock.saved(1750.0, 1751.0)
    assert not clock.is_due(1870.0) and clock.is_due(1871.0)
    assert checkpoints.Clock(minutes=0, now=5.0).is_due(5.0)
