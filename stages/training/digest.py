"""Hashes that tie a log-probability to what it is of: the model that gave it, and the tokens of the pair.

`reference` writes them, `dpo` checks them.
"""

import hashlib
import json
from pathlib import Path


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


def tokens(pair: dict[str, list[int]]) -> str:
    """32 hex digits over the ids of prompt, chosen and rejected side: all that a pair's log-probabilities are of."""
    ids = [pair[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")]
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:32]
