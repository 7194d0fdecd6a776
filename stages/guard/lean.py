"""Packages that a library imports merely because they are installed, for what no stage asks of it: left out where the
stage does not import them itself, since every start pays for them.
"""

import sys

UNASKED = {
    "ray": "vLLM imports it for engines over several nodes: 0.4 s; the guard's pool brings it back",
    "sklearn": "transformers imports it for assisted generation: 1.3 s in every stage with a model",
}


def leave_out(used: set[str]) -> None:
    """Whoever looks for one of the others is told that it is not installed; `used` are the stage's own imports."""
    for name in UNASKED.keys() - used:
        sys.modules.setdefault(name, None)  # pyright: ignore[reportArgumentType]


def bring_back(name: str) -> None:
    """Let it be imported after all."""
    if name in sys.modules and sys.modules[name] is None:
        del sys.modules[name]
