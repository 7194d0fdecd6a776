"""Folders that stand ready for what people bring: RewardBench and RewardBench 2."""

from pathlib import Path

from stages.data import releases


def is_empty(raw: Path) -> bool:
    """Whether this is a folder without any file of rows: nobody put anything there."""
    return raw.is_dir() and not any(file.name.endswith((*releases.ROWS, ".json")) for file in raw.rglob("*"))
