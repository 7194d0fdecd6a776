"""Stands in for `python` while the real graph is run: a stage becomes one that writes a digest of everything it may
read.

A script named python and first on PATH runs this instead of the interpreter. `-m stages.guard.run <stage> ...` writes
to each output a hash of the command, the inputs' bytes, the params the code reads and the code key; the fingerprint
and all else run for real. So outputs change exactly when something that the stage reads has changed, within
milliseconds and without a GPU: nothing is imported here that a digest does not need.
"""

import ast
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.guard import fingerprint, options
from stages.tools.plan.graph import VERDICTS

KINDS = {"Path": Path, "str": str, "int": int, "float": float, "list[Path]": list[Path], "list[str]": list[str]}


def answer(root: Path, words: list[str], inputs: dict[str, bytes]) -> bytes:
    """What the stage of the command `words` (stage, options) writes, given what its inputs hold."""
    params = YAML(typ="safe").load(root / "params.yaml")
    digest = hashlib.sha256(" ".join(words).encode() + fingerprint.key(words[0], root).encode())
    for path, content in sorted(inputs.items()):
        digest.update(path.encode() + hashlib.sha256(content).digest())
    for key in sorted(fingerprint.params_read(words[0], root)):
        value = params
        for part in key.split("."):
            value = value[part]
        digest.update(f"{key}={value!r}".encode())
    return digest.hexdigest().encode()


def content(path: Path) -> bytes:
    """A file, or the names and contents of a folder's files: raw data, or metrics that a folder gathers."""
    if path.is_file():
        return path.read_bytes()
    return b"".join(f.name.encode() + f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file())


def written(digest: bytes, path: str) -> bytes:
    """An output. A verdict of `stop` says go on whatever was looked at, as it does in every run that is not stopped."""
    return (b"go on" if path.startswith(VERDICTS) else digest) + b" " + path.encode()


def ports(module: str, root: Path) -> tuple[dict[str, Any], list[str]]:
    """As `options.ports`, of a stage's source instead of the stage, whose libraries take a second to import."""
    body = ast.parse((root / "stages" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")).body
    main = next(node.args for node in body if isinstance(node, ast.FunctionDef) and node.name == "main")
    types = {a.arg: KINDS[ast.unparse(a.annotation)] for a in [*main.args[1:], *main.kwonlyargs] if a.annotation}
    return types, [a.arg for a in main.kwonlyargs]


def main() -> None:
    words = sys.argv[1:]
    if words[:2] != ["-m", "stages.guard.run"] or words[2] == "guard.fingerprint":
        os.execv(sys.executable, [sys.executable, *words])
    root = Path.cwd()
    types, writes = ports(words[2], root)
    arguments = options.parse(words[3:], types)
    read = [path for name, value in arguments.items() if name not in writes for path in options.paths(value)]
    digest = answer(root, words[2:], {str(path): content(path) for path in read})
    for path in [path for name in writes for path in options.paths(arguments[name])]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(written(digest, str(path)))


if __name__ == "__main__":
    main()
