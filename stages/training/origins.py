"""A model as others left it, in a folder with this digest or on the hub at this commit, and the template given with it.

`base` and `pretrained` share it. Safetensors only, and no code that came with a model.
"""

import re
from pathlib import Path
from typing import Any

from stages.training import digest

COMMIT = re.compile(r"[0-9a-f]{40}")
"""A revision of the hub that nobody can move."""


def folder_or_hub(model_class: Any, name: str, revision: str | None, dtype: Any, **options: Any) -> tuple[Any, Any]:
    """Weights and tokenizer; `options` of from_pretrained.

    Raises ValueError for a revision that is none, or not this folder's.
    """
    from transformers import AutoTokenizer

    pinned: dict[str, Any] = {"trust_remote_code": False}
    if Path(name).is_dir():
        check_digest(Path(name), revision)
    elif COMMIT.fullmatch(revision or ""):
        pinned["revision"] = revision
    else:
        rule = (
            f"{name} is no folder here, and as a hub model needs its 40-digit commit, so that the run can be repeated"
        )
        raise ValueError(f"params.yaml: revision = {revision!r}: {rule}; run `python -m stages.tools.pin`")
    model = model_class.from_pretrained(name, dtype=dtype, use_safetensors=True, **pinned, **options)
    return model, AutoTokenizer.from_pretrained(name, **pinned)


def check_digest(folder: Path, revision: str | None) -> None:
    """Raise ValueError unless the folder's files are those that were pinned."""
    found = digest.model(folder)
    if found != revision:
        told = f"revision = {revision!r}, and the files of {folder} have the digest {found}"
        raise ValueError(f"params.yaml: {told}; set it to that, or bring back the files")


def given_template(template: Path) -> str | None:
    """The Jinja file, or the one in the folder. Raises ValueError for a folder with several."""
    found = sorted(template.glob("*.jinja")) if template.is_dir() else [template]
    if len(found) > 1:
        raise ValueError(f"{template}: holds {found[0].name} and {found[1].name}; `template` names one of them")
    return found[0].read_text(encoding="utf-8") if found else None
