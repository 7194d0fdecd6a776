"""The guard: runs one stage so that its outputs appear whole or not at all.

    python -m stages.guard.run training.base --base models/base

is how dvc.yaml runs a stage.

A stage is a module under stages/ with `main(params, <what it reads>, *, <what it writes>)`; its options follow from
that signature (options.py). Around the call, the guard

- checks params.yaml whole, and that code and packages are what code.lock.yaml says (checks.py);
- refuses what cannot work as soon as that is known (feasible.py);
- checks that every input holds the bytes that dvc.lock recorded, and that none can do harm (integrity.py);
- takes one lock per output, and sees to it that nothing of the stage outlives dvc, however either dies (watchdog.py);
- lets the stage write into `.partial/` beside each output, and renames when all is there;
- starts a training that several processes share (launch.py), or workers that rows are dealt to (pool.py);
- names the home of what must survive a kill (scratch.py): a training stage's checkpoints, chunks of rows (chunks.py);
- records nothing if params or inputs that the stage read changed meanwhile, or if its rows do not add up;
- keeps the libraries quiet (quiet.py), and leaves out what they do for nothing (lean.py);
- writes down what the run cost, for the forecast of the next (spent.py).

An error of the data or the settings is one line; a traceback is a bug.
"""

import fcntl
import importlib
import operator
import os
import shutil
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

from stages.guard import (
    checks,
    chunks,
    feasible,
    fingerprint,
    integrity,
    launch,
    lean,
    options,
    quiet,
    scratch,
    spent,
    watchdog,
)
from stages.guard.checks import ROOT
from stages.guard.refusal import Refusal, explain

LOCKS = Path(".scratch/locks")
BEFORE_THE_MODELS = ("guard.fingerprint", "training.base", "training.pretrained")


class Recorder:
    """Params seen by a stage; remembers which leaves it read, so that only those are compared at the end."""

    def __init__(self, node: typing.Any, seen: dict[str, typing.Any], path: str = "") -> None:
        self.__dict__.update(_node=node, _seen=seen, _path=path)

    def __getattr__(self, name: str) -> typing.Any:
        value, path = getattr(self._node, name), f"{self._path}{name}"
        if hasattr(type(value), "model_fields"):
            return Recorder(value, self._seen, f"{path}.")
        if not path.startswith("runtime."):
            self._seen[path] = value
        return value


def partial(value: typing.Any) -> typing.Any:
    """Where an output is written before it is whole."""
    return [partial(v) for v in value] if isinstance(value, list) else value.parent / ".partial" / value.name


def delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def locks(outs: list[Path]) -> Iterator[None]:
    """Hold one file lock per output. Raises Refusal when another process holds one."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        for out in sorted(outs):
            file = held.enter_context((LOCKS / str(out).replace("/", "%")).open("wb"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                remedy = "wait for it or stop it, then run `dvc --wait-for-lock repro`"
                raise Refusal(f"{out} is being written by another run; {remedy}") from None
        yield


@contextmanager
def beside(outs: list[Path]) -> Iterator[None]:
    """Empty places for unfinished outputs, before and after."""
    for path in outs:
        delete(partial(path))
        partial(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for path in outs:
            delete(partial(path))


def call(stage: str, main: Callable, arguments: dict, params: typing.Any, distributed: bool) -> None:
    """Run the stage here, or under torchrun when it trains on several processes (`runtime.processes`)."""
    if distributed and params.runtime.processes > 1:
        mark_as_read(scratch.section(stage), params)
        return launch.launch(stage, arguments, params.runtime)
    if distributed:  # on one GPU: transformers would share every batch among all that it sees
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return main(params, **arguments)


def mark_as_read(section: str, params: typing.Any) -> None:
    """torchrun's processes read params unseen by the Recorder: their own section, and what all trainers read."""
    for leaf in type(getattr(params, section)._node).model_fields:
        operator.attrgetter(f"{section}.{leaf}")(params)
    operator.attrgetter("dtype", "seed")(params)


def maps_rows(stage: str) -> bool:
    """Whether it computes rows in chunks."""
    return ROOT / "stages/rows.py" in fingerprint.closure(stage, ROOT)


def deal_rows(stage: str, runtime: typing.Any) -> None:
    """Where the layout names several workers, chunks of rows are dealt to them. Raises Refusal where Ray is missing."""
    if runtime.workers == 1:
        return
    lean.bring_back("ray")
    from stages import rows

    try:
        from stages.guard import pool
    except ModuleNotFoundError as error:
        told = f"runtime.workers = {runtime.workers} wants the package ray ({error})"
        raise Refusal(f"params.yaml: {told}; run `make setup`, or set it to 1") from None
    rows.deal = pool.dealer(stage, runtime.workers, runtime.gpus_per_worker)


def survival(stage: str, distributed: bool, reads: dict, params: typing.Any, out: Path) -> AbstractContextManager[bool]:
    """Where what is done already is kept for the next run: a training's checkpoints, chunks of rows, or nothing; and
    whether an earlier run left some.
    """
    if distributed:
        return scratch.folder(stage, reads, params, out, ROOT)
    if maps_rows(stage):
        return chunks.kept(chunks.key(stage, reads, params, ROOT), scratch.home(ROOT))
    return nullcontext(False)


def imported(stage: str) -> typing.Any:
    try:
        return importlib.import_module(f"stages.{stage}")
    except ModuleNotFoundError as error:
        path = f"stages/{stage.replace('.', '/')}.py"
        raise Refusal(f"no module {path} ({error}); mend the command in dvc.yaml or run `make setup`") from error


def execute(stage: str, argv: list[str]) -> None:
    """The guard around one stage. Raises Refusal, or what the stage raises."""
    from stages.guard.params import load

    module = imported(stage)
    types, writes = options.ports(module.main)
    params, seen = load(ROOT / "params.yaml"), {}  # first: an odd name in it is told by its rule
    arguments = options.parse(argv, types)
    reads = {name: value for name, value in arguments.items() if name not in writes}
    unfinished = {name: partial(arguments[name]) for name in writes}
    inputs = [path for value in reads.values() for path in options.paths(value)]
    outs = [path for name in writes for path in options.paths(arguments[name])]
    distributed, dear = getattr(module, "DISTRIBUTED", False), "torch" in fingerprint.packages(stage, ROOT)
    if stage != "guard.fingerprint":
        checks.check_code(stage)
    with locks(outs):
        before = checks.state(inputs)
        checks.check_inputs(inputs)
        if stage not in BEFORE_THE_MODELS:
            feasible.check(params, ROOT, dear)
        if maps_rows(stage):
            deal_rows(stage, params.runtime)
        with beside(outs), survival(stage, distributed, reads, params, outs[0]) as begun:
            call(stage, module.main, reads | unfinished, Recorder(params, seen), distributed)
            publish(outs, inputs, before, seen)
    if not begun:  # or its seconds would be of a part of the work
        spent.note(spent.Run(stage, arguments, writes, seen, params.runtime, dear), scratch.home(ROOT))


def publish(outs: list[Path], inputs: list[Path], before: checks.State, seen: dict) -> None:
    """Rename what the stage wrote to its place, unless something it read has changed. Raises Refusal."""
    from stages.guard.params import load

    params = load(ROOT / "params.yaml")
    checks.check_params(seen, {key: operator.attrgetter(key)(params) for key in seen})
    if checks.state(inputs) != before:
        raise Refusal("an input changed during the run; the result was not recorded, run again")
    missing = [str(path) for path in outs if not partial(path).exists()]
    if missing:
        raise Refusal(f"the stage ended without writing {missing}; this is a bug of the stage")
    checks.check_rows([partial(path) for path in outs])
    if feasible.POOL in outs:
        feasible.check_account(partial(feasible.POOL), params)
    for path in outs:
        integrity.check_safe(partial(path))
    for path in outs:
        delete(path)
        os.replace(partial(path), path)


def main() -> None:
    watchdog.guard_family()
    lean.end_soon()
    quiet.loggers()
    os.chdir(ROOT)
    os.environ["STAGE_HOME"] = str(scratch.home(ROOT))
    rank, key = sys.argv[1].partition("--rank=")[1:]
    stage, *argv = sys.argv[2:] if rank else sys.argv[1:]
    try:
        lean.leave_out(fingerprint.packages(stage, ROOT))
        launch.one_of_several(key, stage, argv) if rank else execute(stage, argv)
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        sys.exit(f"{stage}: {line}")


if __name__ == "__main__":
    main()
