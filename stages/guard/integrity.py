"""What the guard refuses to read or to record: bytes that are not those of dvc.lock, and files that could run code or
fill the memory.

DVC trusts what it downloads: after `dvc pull` a damaged object stands in the workspace as good, and `dvc status` is
clean. So before a stage reads an input that another stage wrote, its md5 is computed and compared with the one in
dvc.lock; once per file and checkout, since a stamp in .scratch/verified keeps size, time and inode of what was found
right.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

STAMPS = Path(".scratch/verified")
CACHE = Path(".dvc/cache/files/md5")
RUNS_CODE = {".bin", ".ckpt", ".h5", ".joblib", ".msgpack", ".npy", ".pickle", ".pkl", ".pt", ".pth", ".py", ".so"}
"""Endings of files that loading can execute (pickles and what may hold one) or that are code."""
IGNORED = {"__pycache__", ".partial"}
"""Folders that DVC leaves out, with *.pyc; as in .dvcignore."""
INFLATION = 1000
"""A parquet file may hold this many times its own bytes; text compresses 3 to 30 times."""


def locked_stages(root: Path) -> dict[str, dict]:
    """What dvc.lock says of every stage, by name, removed ones too; all leaves are strings."""
    lock = root / "dvc.lock"
    return stages_in(lock.read_text(encoding="utf-8")) if lock.exists() else {}


def stages_in(lock: str) -> dict[str, dict]:
    """The same of a lock's text."""
    import yaml

    return (yaml.load(lock, yaml.CBaseLoader) or {}).get("stages", {})


def recorded(root: Path) -> dict[str, str]:
    """Path to md5 of every output in dvc.lock; a folder's ends in `.dir`."""
    outs = [out for stage in locked_stages(root).values() for out in stage.get("outs", [])]
    return {out["path"]: out["md5"] for out in outs if "md5" in out}


def md5(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def digest(path: Path) -> str:
    """DVC's own hash: the md5 of a file, or of the sorted list of a folder's files and their md5s."""
    if path.is_file():
        return md5(path)
    found = [file.relative_to(path) for file in path.rglob("*") if file.is_file()]
    files = sorted(file.as_posix() for file in found if file.suffix != ".pyc" and IGNORED.isdisjoint(file.parts))
    listing = json.dumps([{"md5": md5(path / name), "relpath": name} for name in files])
    return f"{hashlib.md5(listing.encode()).hexdigest()}.dir"


def culprit(path: Path, wanted: str) -> tuple[Path, str]:
    """The damaged file, and its object in the cache; of a folder the first one that is not as listed, the folder
    itself where no list is at hand.
    """
    listing = CACHE / wanted[:2] / wanted[2:]
    if path.is_dir() and listing.exists():
        for entry in json.loads(listing.read_text(encoding="utf-8")):
            file = path / entry["relpath"]
            if not file.exists() or md5(file) != entry["md5"]:
                return file, f"{CACHE}/{entry['md5'][:2]}/{entry['md5'][2:]}"
    return path, str(listing)


def check_recorded(path: Path, wanted: str) -> None:
    """Raise ValueError unless `path` holds what dvc.lock says."""
    found = digest(path)
    if found != wanted:
        file, cached = culprit(path, wanted)
        told = f"{file} is damaged or edited: {path} has md5 {found}, dvc.lock says {wanted}"
        again = f"`rm -rf {path} {cached}` and `dvc --wait-for-lock repro`, which makes it again"
        raise ValueError(f"{told}; run `dvc checkout --force {path}`, and if that does not help, {again}")


def check_once(path: Path, wanted: str, state: str) -> None:
    """`check_recorded`, unless it was done before in this `state` of the files (their sizes, times and inodes)."""
    stamp = STAMPS / str(path).replace("/", "%")
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != f"{wanted} {state}":
        check_recorded(path, wanted)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(f"{wanted} {state}", encoding="utf-8")


def check_safe(path: Path) -> None:
    """Raise ValueError for a model folder that could run code or read other files, or a parquet file, by itself or in a
    folder, that would fill the memory.
    """
    is_model = (path / "config.json").exists()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if is_model:
            check_model_file(file)
        if file.suffix == ".parquet":
            check_parquet(file)


def check_model_file(file: Path) -> None:
    if file.suffix in RUNS_CODE:
        rule = f"a {file.suffix} file can run code when it is loaded"
        raise ValueError(f"{file}: {rule}; keep safetensors only, and remove it")
    if file.suffix == ".json" and file.name != "tokenizer.json":
        for key, value in leaves(json.loads(file.read_text(encoding="utf-8"))):
            check_leaf(file, key, value)


def check_leaf(file: Path, key: str, value: Any) -> None:
    """One setting of a model's JSON files."""
    if key.endswith("auto_map") or "auto_map." in key:
        rule = "names code to be run from elsewhere, and remote code is never run"
        raise ValueError(f"{file}: {key} = {value!r} {rule}; use a model without it")
    if key.endswith("_file") and isinstance(value, str) and ("/" in value or "\\" in value):
        rule = "names a file outside the model folder"
        raise ValueError(f"{file}: {key} = {value!r} {rule}; put the file in the folder, and its bare name here")


def leaves(node: Any, path: str = "") -> list[tuple[str, Any]]:
    """Every value of a parsed JSON file under its dotted key."""
    if isinstance(node, dict):
        return [leaf for key, value in node.items() for leaf in leaves(value, f"{path}.{key}".lstrip("."))]
    if isinstance(node, list):
        return [leaf for value in node for leaf in leaves(value, path)]
    return [(path, node)]


def check_parquet(file: Path) -> None:
    """Refuse by the file's own metadata, before a row is read: a row takes at least a byte, and nothing swells more
    than INFLATION times.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = file.stat().st_size
    try:
        metadata = pq.read_metadata(file)
    except (pa.ArrowInvalid, OSError) as error:
        told = " ".join(str(error).split())
        remedy = f"run `rm {file}` and `dvc --wait-for-lock repro --pull`"
        raise ValueError(f"{file} is no whole parquet file ({told}); {remedy}") from error
    swollen = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if metadata.num_rows > size or swollen > INFLATION * size:
        claimed = f"{metadata.num_rows:,} rows and {swollen:,} bytes"
        rule = f"over {INFLATION} times its size"
        raise ValueError(f"{file}: {size:,} bytes claim {claimed}, {rule}; do not use this file")
