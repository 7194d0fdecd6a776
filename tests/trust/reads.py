"""The params that a stage's code reads, as its syntax tree says: for the tests of dvc.yaml, and to stand in for the
stage.
"""

import ast
from pathlib import Path

from stages.guard import fingerprint
from stages.guard.params import Params


def keys_read(module: str, root: Path) -> set[str]:
    """Dotted params.yaml keys that a stage's closure reads as `params.a.b`, `params.runtime` left out; a section
    handed on whole counts whole.
    """
    found = set()
    for path in fingerprint.closure(module, root):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        inner = {node.value for node in nodes if isinstance(node, ast.Attribute)}
        chains = [dotted(node) for node in nodes if isinstance(node, ast.Attribute) and node not in inner]
        found |= {".".join(chain[1:3]) for chain in chains if chain[:1] == ["params"]}
    leaves = {leaf for name in found for leaf in section(name)}
    return {name for name in leaves if not name.startswith("runtime")}


def section(name: str) -> set[str]:
    """A section's leaves, or the leaf itself."""
    fields = (
        getattr(Params.model_fields[name].annotation, "model_fields", None) if name in Params.model_fields else None
    )
    return {f"{name}.{leaf}" for leaf in fields} if fields else {name}


def dotted(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return [*inner, node.attr] if inner else []
    return [node.id] if isinstance(node, ast.Name) else []
