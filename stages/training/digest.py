"""Hashes that tie a log-probability to what it is of: the model that gave it, and the texts of the pair.

`reference` writes them, `dpo` checks them.
"""

import hashlib
import json
from pathlib import Path
from typing import Any


def model(folder: Path, quantized: bool = False) -> str:
    """32 hex digits over the names and bytes of a model folder's own files (those of a folder inside it, such as a
    kept adapter, do not count).

    In 4 bits it is another model: `-nf4` says so.
    """
    digest = hashlib.sha256()
    for file in sorted(f for f in folder.iterdir() if f.is_file()):
        with file.open("rb") as stream:
            digest.update(f"{file.name}\n{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:32] + "-nf4" * quantized


def pair(row: dict[str, Any]) -> str:
    """32 hex digits over what a pair's log-probabilities depend on: prompt, both sides, and whether each ended by
    itself.
    """
    said = [[row[name] for name in ("prompt", "chosen", "rejected")], row["chosen_finished"], row["rejected_finished"]]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]
