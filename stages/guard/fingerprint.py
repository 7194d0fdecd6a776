"""Give every stage one hash of what its code says: its import closure, its data files and the locked versions of the
packages that decide what it computes.

Reads   stages/ and requirements.lock
Writes  code.lock.yaml, in git: one line per stage, which dvc.yaml lists among that stage's params

Comments, docstrings and blank lines are cut out first, so that they rerun nothing; strings stay as they are. The text
is hashed rather than the syntax tree, because ast.dump and ast.unparse differ between Python versions. Which packages
count, see packages.py. What of params.yaml a stage reads is known from its code in the same way.
"""

import ast
import hashlib
import io
import sys
import tokenize
from functools import cache
from pathlib import Path
from typing import Any

from stages.guard.packages import counted, lock

NOT_STAGES = ("guard", "tools")  # rooms that run and write the pipeline or look at it, and are part of no result
HEADER = "# One hash per stage of what its code says; by the stage `fingerprint`, stages/guard/fingerprint.py\n"
SEEN = "name the module whole, as `from stages import ...` does, so that its edit is seen"
DYNAMIC = {"import_module", "__import__"}
STRING_BEGINS = {tokenize.STRING, getattr(tokenize, "FSTRING_START", None)}  # Python 3.12 gives an f-string in pieces
STRING_ENDS = {tokenize.STRING, getattr(tokenize, "FSTRING_END", None)}


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
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}:{node.lineno}: relative import; {SEEN}")
            names += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Name | ast.Attribute) and called(node) in DYNAMIC:
            raise ValueError(f"{path}:{node.lineno}: dynamic import; {SEEN}")
    return names


def called(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


@cache
def spoken(source: str) -> str:
    """The source without comments, docstrings and blank lines; what stands inside a string stays to the last space."""
    lines = source.split("\n")
    dropped = docstring_lines(ast.parse(source), lines)
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    for token in tokens:
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    verbatim = lines_that_end_in_a_string(tokens)
    bare = [line if number in verbatim else line.rstrip() for number, line in enumerate(lines, 1)]
    return "\n".join(
        line for number, line in enumerate(bare, 1) if number not in dropped and (line or number in verbatim)
    )


def lines_that_end_in_a_string(tokens: list[tokenize.TokenInfo]) -> set[int]:
    found: set[int] = set()
    begun: list[int] = []
    for token in tokens:
        if token.type in STRING_BEGINS:
            begun.append(token.start[0])
        if token.type in STRING_ENDS:
            found |= set(range(begun.pop(), token.end[0]))
    return found


def docstring_lines(tree: ast.AST, lines: list[str]) -> set[int]:
    """Lines of statements that are a string and nothing else; such a statement does nothing, wherever it stands."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            last = node.end_lineno or node.lineno
            before, after = lines[node.lineno - 1][: node.col_offset], lines[last - 1][node.end_col_offset :]
            if not before.strip() and not after.partition("#")[0].strip():
                found |= set(range(node.lineno, last + 1))
    return found


def data_files(path: Path) -> list[Path]:
    """Files beside a module that it names in `DATA_FILES = ["..."]`."""
    source = path.read_text(encoding="utf-8")
    for node in ast.parse(source).body if "DATA_FILES" in source else []:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "DATA_FILES" for t in node.targets):
            return [path.parent / name for name in ast.literal_eval(node.value)]
    return []


def packages(module: str, root: Path) -> set[str]:
    """Names that a stage's closure imports from outside, as its import statements say them."""
    tops = {name.split(".")[0] for path in closure(module, root) for name in imports(path)}
    return tops - set(sys.stdlib_module_names) - {"stages"}


def locked_packages(module: str, root: Path) -> dict[str, str]:
    """Name to version of the packages that decide what a stage computes.

    Raises ValueError for one that is not locked.
    """
    try:
        return counted(packages(module, root), root)
    except ValueError as error:
        raise ValueError(f"stages/{module.replace('.', '/')}.py: {error}") from None


def key(module: str, root: Path) -> str:
    """The first 16 hex digits of a sha256 over the stage's code, data files and package versions."""
    digest = hashlib.sha256()
    for path in closure(module, root):
        said = spoken(path.read_text(encoding="utf-8"))
        digest.update(f"{path.relative_to(root)}\n{said}\n".encode())
        for extra in data_files(path):
            digest.update(f"{extra.relative_to(root)}\n".encode() + extra.read_bytes())
    for name, version in locked_packages(module, root).items():
        digest.update(f"{name}=={version}\n".encode())
    return digest.hexdigest()[:16]


def params_read(module: str, root: Path) -> set[str]:
    """`a.b` for every `params.a.b` that a stage's closure reads, `a` for a section that it hands on whole; `runtime`,
    which decides nothing, is left out.
    """
    found = set()
    for path in closure(module, root):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        inner = {node.value for node in nodes if isinstance(node, ast.Attribute)}
        chains = [dotted(node) for node in nodes if isinstance(node, ast.Attribute) and node not in inner]
        found |= {".".join(chain[1:3]) for chain in chains if chain[:1] == ["params"]}
    return {name for name in found if not name.startswith("runtime")}


def dotted(node: ast.AST) -> list[str]:
    """The names of an attribute, `["params", "a", "b"]`; none of what is no chain of names."""
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return [*inner, node.attr] if inner else []
    return [node.id] if isinstance(node, ast.Name) else []


def stage_modules(root: Path) -> list[str]:
    """Modules with a `main`, named as the guard names them."""
    home = root / "stages"
    files = [path for path in sorted(home.rglob("*.py")) if "\ndef main(" in path.read_text(encoding="utf-8")]
    parts = [path.relative_to(home).with_suffix("").parts for path in files]
    return [".".join(part) for part in parts if part[0] not in NOT_STAGES]


def read(path: Path) -> dict[str, str]:
    """code.lock.yaml as a dict; empty where there is none yet."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return dict(line.split(": ") for line in lines if line and not line.startswith("#"))


def main(params: Any, code: Path, packages: Path, *, keys: Path) -> None:
    modules = stage_modules(code.parent)
    lines = [f"{name.replace('.', '_')}: {key(name, code.parent)}\n" for name in modules]
    keys.write_text(HEADER + "".join(lines), encoding="utf-8")
    print(f"fingerprint: {len(modules)} stages, lock with {len(lock(packages))} packages")
