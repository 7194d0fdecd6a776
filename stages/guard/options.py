"""A stage's command-line options, as the signature of its `main` gives them: `--name value ...` after its arguments,
with their types.
"""

import inspect
import typing
from collections.abc import Callable
from pathlib import Path


def ports(main: Callable) -> tuple[dict[str, typing.Any], list[str]]:
    """A stage's arguments with their types, and the names of those it writes (the keyword-only ones)."""
    types = typing.get_type_hints(main)
    arguments = list(inspect.signature(main).parameters.values())[1:]
    return {a.name: types[a.name] for a in arguments}, [a.name for a in arguments if a.kind is a.KEYWORD_ONLY]


def parse(argv: list[str], types: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """`--name value ...` to arguments; a list takes one value or more, all others exactly one.

    Raises ValueError for a value of another type.
    """
    given: dict[str, list[str]] = {}
    for word in argv:
        if word.startswith("--") or not given:
            given[word.removeprefix("--")] = []
        else:
            list(given.values())[-1].append(word)
    if set(given) != set(types):
        raise ValueError(f"options are {sorted(types)}, given were {sorted(given)}; mend the command in dvc.yaml")
    for name, kind in types.items():
        several = typing.get_origin(kind) is list
        if not given[name] or (not several and len(given[name]) > 1):
            raise ValueError(
                f"--{name} has {len(given[name])} values, it takes {'one or more' if several else 'one'}; mend the command in dvc.yaml"
            )
    return {name: converted(name, kind, given[name]) for name, kind in types.items()}


def converted(name: str, kind: typing.Any, words: list[str]) -> typing.Any:
    """One option's words as its type, a list where the type is one."""
    try:
        return [typing.get_args(kind)[0](word) for word in words] if typing.get_origin(kind) is list else kind(words[0])
    except ValueError:
        raise ValueError(
            f"--{name} is {' '.join(words)}, not {getattr(kind, '__name__', kind)}; mend the number in params.yaml that dvc.yaml puts there"
        ) from None


def paths(value: typing.Any) -> list[Path]:
    return [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, Path)]
