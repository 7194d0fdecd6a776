"""The guard: runs one stage so that its outputs appear whole or not at all.

    python -m stages.guard.run rank --scores a.parquet b.parquet --pairs data/pairs/pi0.parquet

A stage is a module stages/<name>.py with `main(params, <what it reads>, *, <what it writes>)`; its options follow from
that signature (stages/guard/options.py). Around the call, the guard
  checks params.yaml whole, and that the code and the locked packages are what code.lock.yaml says they were checks
  that every input holds the bytes that dvc.lock recorded, and that no model folder or parquet file can do harm takes
  one lock per output, and sees to it that nothing of the stage outlives `dvc`, however either of them dies lets the
  stage write into `.partial/` beside each output, and renames when all is there names a scratch folder for a training
  stage's checkpoints, by the hash of all that decides its result, so that a killed run goes on from its own records
  nothing if params or inputs that the stage read changed meanwhile, or if its rows do not add up
An error of the data or the settings is one line; a traceback is a bug.
"""

import errno
import fcntl
import importlib
import json
import operator
import os
import shutil
import subprocess
import sys
import traceback
import typing
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from stages.guard import chunks, fingerprint, integrity, options, packages, scratch, watchdog

LOCKS = Path(".scratch/locks")
ROOT = Path(__file__).resolve().parents[2]


class Refusal(Exception):
    """The guard's own refusals; the message is one line for the user."""


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
    return [partial(v) for v in value] if isinstance(value, list) else value.parent / ".partial" / value.name


def delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def locks(outs: list[Path]) -> Iterator[None]:
    """Hold one file lock per output. Raises Refusal when another process holds one."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    held = [(LOCKS / str(out).replace("/", "%")).open("w") for out in sorted(outs)]
    try:
        for file in held:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                name = Path(file.name).name.replace("%", "/")
                raise Refusal(
                    f"{name} is being written by another run; wait for it or stop it, then run `dvc --wait-for-lock repro`"
                ) from None
        yield
    finally:
        for file in held:
            file.close()


def state(inputs: list[Path]) -> dict[str, tuple[int, int, int]]:
    """Size, time and inode of every input file, the files of a folder included. Raises Refusal for a missing input."""
    for path in inputs:
        if not path.exists():
            raise Refusal(
                f"{path} is missing; bring it with `dvc pull {path}` or make it with `dvc --wait-for-lock repro`"
            )
    files = [f for path in inputs for f in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return {str(f): (f.stat().st_size, f.stat().st_mtime_ns, f.stat().st_ino) for f in files}


def check_inputs(inputs: list[Path]) -> None:
    """Raise ValueError unless the inputs are what dvc.lock recorded, and safe to load."""
    known = integrity.recorded(ROOT)
    for path in inputs:
        whole = next((p for p in (path, *path.parents) if str(p) in known), None)  # of policy/half, the policy
        if whole:  # else it is raw data, in git
            integrity.check_once(whole, known[str(whole)], str(state([whole])))
        integrity.check_safe(path)


def check_code(stage: str) -> None:
    """Raise Refusal unless code and installed packages are the ones that `fingerprint` recorded for this stage."""
    recorded = fingerprint.read(ROOT / "code.lock.yaml").get(stage.replace(".", "_"))
    if recorded != fingerprint.key(stage, ROOT):
        raise Refusal(
            "its code differs from code.lock.yaml; run `dvc --wait-for-lock repro`, which first mends the file"
        )
    for name, locked, installed in packages.unlike_the_lock(fingerprint.packages(stage, ROOT), ROOT):
        raise Refusal(f"{name} {locked} is locked, {installed or 'none'} is installed; run `make setup`")


def check_rows(written: list[Path]) -> None:
    """Raise Refusal if a metrics file says that rows went missing: rows_in must be rows_out plus the drops, each under
    its name.
    """
    for path in written:
        if path.suffix != ".json":
            continue
        facts = json.loads(path.read_text())
        for rows in (facts, *facts.values()):
            if (
                isinstance(rows, dict)
                and "rows_in" in rows
                and rows["rows_in"] != rows["rows_out"] + sum(rows["drops"].values())
            ):
                raise Refusal(
                    f"{rows['rows_in']} rows in, {rows['rows_out']} out, drops {rows['drops']}: rows went missing; this is a bug of the stage"
                )


def call(stage: str, main: Callable, arguments: dict, params: typing.Any, distributed: bool) -> None:
    """Run the stage here, or under torchrun when it trains on several processes (`runtime.processes`).

    The processes read params themselves, unseen by the Recorder: their section and what all trainers read is marked as
    read here.
    """
    if not distributed:
        return main(params, **arguments)
    if params.runtime.processes == 1:  # on one GPU: transformers would share every batch among all that it sees
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        return main(params, **arguments)
    section = scratch.section(stage)
    for leaf in type(getattr(params, section)._node).model_fields:
        operator.attrgetter(f"{section}.{leaf}")(params)
    operator.attrgetter("dtype", "seed")(params)
    os.environ["ACCELERATE_USE_DEEPSPEED"] = str(params.runtime.deepspeed > 0).lower()
    words = [
        w
        for name, value in arguments.items()
        for w in (f"--{name}", *map(str, value if isinstance(value, list) else [value]))
    ]
    launcher = [
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={params.runtime.processes}",
        "-m",
        "stages.guard.run",
        "--rank",
        stage,
    ]
    code = subprocess.run([sys.executable, "-m", *launcher, *words]).returncode
    if code:
        raise Refusal(f"a training process ended with {code}; its own message stands above")


def survival(stage: str, distributed: bool, reads: dict, params: typing.Any, out: Path) -> AbstractContextManager:
    """Where what is done already is kept for the next run: a training's checkpoints, chunks of rows, or nothing."""
    if distributed:
        return scratch.folder(stage, reads, params, out, ROOT)
    if ROOT / "stages/rows.py" in fingerprint.closure(stage, ROOT):
        return chunks.kept(chunks.key(stage, reads, params, ROOT), scratch.home(ROOT))
    return nullcontext()


def execute(stage: str, argv: list[str]) -> None:
    """The guard around one stage. Raises Refusal, or what the stage raises."""
    from stages.guard.params import load

    try:
        module = importlib.import_module(f"stages.{stage}")
    except ModuleNotFoundError as error:
        raise Refusal(
            f"no module stages/{stage.replace('.', '/')}.py ({error}); mend the command in dvc.yaml or run `make setup`"
        ) from error
    types, writes = options.ports(module.main)
    arguments = options.parse(argv, types)
    params, seen = load(ROOT / "params.yaml"), {}
    inputs = [p for name, value in arguments.items() if name not in writes for p in options.paths(value)]
    outs = [p for name in writes for p in options.paths(arguments[name])]
    if stage != "guard.fingerprint":
        check_code(stage)
    with locks(outs):
        before = state(inputs)
        check_inputs(inputs)
        for path in outs:
            delete(partial(path))
            partial(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            beside = {name: partial(value) if name in writes else value for name, value in arguments.items()}
            distributed = getattr(module, "DISTRIBUTED", False)
            reads = {name: value for name, value in arguments.items() if name not in writes}
            with survival(stage, distributed, reads, params, outs[0]):
                call(stage, module.main, beside, Recorder(params, seen), distributed)
                publish(outs, inputs, before, params, seen)
        finally:
            for path in outs:
                delete(partial(path))


def publish(outs: list[Path], inputs: list[Path], before: dict, params: typing.Any, seen: dict) -> None:
    """Rename what the stage wrote to its place, unless something it read has changed. Raises Refusal."""
    from stages.guard.params import load

    now: dict = {}
    again = Recorder(load(ROOT / "params.yaml"), now)
    for key in seen:
        value = operator.attrgetter(key)(again)
        if value != seen[key]:
            raise Refusal(
                f"params.yaml: {key} changed from {seen[key]} to {value} during the run; the result was not recorded, run again"
            )
    if state(inputs) != before:
        raise Refusal("an input changed during the run; the result was not recorded, run again")
    missing = [str(path) for path in outs if not partial(path).exists()]
    if missing:
        raise Refusal(f"the stage ended without writing {missing}; this is a bug of the stage")
    check_rows([partial(path) for path in outs])
    for path in outs:
        integrity.check_safe(partial(path))
    for path in outs:
        delete(path)
        os.replace(partial(path), path)


def explain(error: BaseException) -> str | None:
    """One line for an error of the data, the settings or the disk; None for a bug, which deserves its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    disk_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
    if disk_full:
        return f"the disk is full ({shutil.disk_usage('.').free / 2**30:.1f} GiB free here); free some space, then run the same command again"
    ours = bool(frames) and Path(frames[-1].filename).is_relative_to(ROOT / "stages")
    readable = isinstance(error, ValueError | OSError | Refusal)
    return " ".join(str(error).split()) if readable and (ours or isinstance(error, Refusal)) else None


def main() -> None:
    ranked = sys.argv[1:2] == ["--rank"]
    watchdog.guard_family()
    os.chdir(ROOT)
    stage, *argv = sys.argv[2:] if ranked else sys.argv[1:]
    os.environ["STAGE_HOME"] = str(scratch.home(ROOT))
    try:
        if ranked:
            from stages.guard.params import load

            if os.environ["RANK"] != "0":
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (for good): one summary line per stage, not per process
            module = importlib.import_module(f"stages.{stage}")
            module.main(load(ROOT / "params.yaml"), **options.parse(argv, options.ports(module.main)[0]))
        else:
            execute(stage, argv)
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        sys.exit(f"{stage}: {line}")


if __name__ == "__main__":
    main()
