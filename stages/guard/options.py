"""A stage's command-line options, as the signature of its `main` gives them: `--name value ...` after its arguments,
with their types.
"""

import argparse
import inspect
import typing
from collections.abc import Callable
from pathlib import Path


def ports(main: Callable) -> tuple[dict[str, typing.Any], list[str]]:
    """A stage's arguments with their types, and the names of those it writes (the keyword-only ones)."""
    types = typing.get_type_hints(main)
    arguments = list(inspect.signature(main).parameters.values())[1:]
    return {a.name: types[a.name] for a in arguments}, [a.name for a in arguments if a.kind is a.KEYWORD_ONLY]


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        raise ValueError(f"{message}; mend the command in dvc.yaml, or the value in params.yaml that it takes")


def parse(argv: list[str], types: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """`--name value ...` to arguments, all of them required; a list takes one value or more, all others exactly one.

    Raises ValueError for an option too many or too few, and for a value of another type.
    """
    parser = Parser(add_help=False, allow_abbrev=False)
    for name, kind in types.items():
        if typing.get_origin(kind) is list:
            parser.add_argument(f"--{name}", nargs="+", type=typing.get_args(kind)[0], required=True)
        else:
            parser.add_argument(f"--{name}", type=kind, required=True)
    return vars(parser.parse_args(argv))


def paths(value: typing.Any) -> list[Path]:
    return [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, Path)]
