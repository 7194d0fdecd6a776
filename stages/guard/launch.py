"""Run a training in several processes by torchrun, on this node or shared evenly among several (runtime.processes,
runtime.nodes).

In an allocation of Slurm, srun starts torchrun on each of its nodes. Elsewhere ssh does, on the hosts that the file
STAGE_HOSTS names, one a line, this one among them. Every node sees this folder at the same path and has the same
code and packages, which its first process checks.

Errors  Refusal, one line for the user; what fails in a process stands above it
"""

import importlib
import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from stages.guard import checks, fingerprint, options
from stages.guard.checks import ROOT
from stages.guard.refusal import Refusal

HANDED_ON = ("ACCELERATE_", "GOMP_", "HF_", "NCCL_", "OMP_", "PYTHON", "STAGE_", "TORCH_", "VLLM_")
"""Beginnings of the variables that another node is told."""


def handed_on() -> dict[str, str]:
    """What a process on another node is told of this one's environment."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(HANDED_ON)}


def launch(stage: str, arguments: dict[str, Any], runtime: Any) -> None:
    """The stage in processes of torchrun. Raises Refusal where one of them fails."""
    os.environ["ACCELERATE_USE_DEEPSPEED"] = str(runtime.deepspeed > 0).lower()
    if runtime.processes > runtime.nodes:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun's own choice, which it would announce
    words = ["-m", "stages.guard.run", f"--rank={fingerprint.key(stage, ROOT)}", stage]
    for name, value in arguments.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={runtime.processes // runtime.nodes}"]
    if runtime.nodes == 1:
        code = subprocess.run([*torchrun, "--standalone", *words]).returncode
    else:
        meeting = f"--rdzv-endpoint={socket.gethostname()}:{free_port()}"
        together = [f"--nnodes={runtime.nodes}", "--rdzv-backend=c10d", f"--rdzv-id={os.getpid()}", meeting]
        code = together_on(runtime.nodes, [*torchrun, *together, *words])
    if code:
        raise Refusal(f"a training process ended with {code}; its own message stands above")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def together_on(nodes: int, words: list[str]) -> int:
    """Run the same words on every node; the first exit status that is not 0, and then no node goes on.

    Raises Refusal where it is not known which nodes, or they are too few.
    """
    if "SLURM_JOB_ID" in os.environ:
        given = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
        if given < nodes:
            raise Refusal(f"params.yaml: runtime.nodes = {nodes}, the Slurm job has {given}; lower it, or ask for more")
        each = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
        return subprocess.run(["srun", *each, *words]).returncode
    started = [subprocess.Popen(command) for command in by_ssh(hosts(nodes), words)]
    codes = [process.poll() for process in started]
    while None in codes and not any(codes):
        time.sleep(0.2)
        codes = [process.poll() for process in started]
    for process in started:
        process.terminate()
        process.wait()
    return next((code for code in codes if code), 0)


def hosts(nodes: int) -> list[str]:
    """The nodes, by the file STAGE_HOSTS. Raises Refusal where this one is not among them."""
    file, here = os.environ.get("STAGE_HOSTS"), socket.gethostname()
    if file is None:
        told = f"runtime.nodes = {nodes}, and there is neither a Slurm job nor a file of hosts"
        raise Refusal(f"params.yaml: {told}; name one in STAGE_HOSTS, one host a line, or set nodes to 1")
    found = Path(file).read_text(encoding="utf-8").split()
    if len(found) < nodes or here not in found[:nodes]:
        told = f"{file} names {len(found)} hosts, runtime.nodes = {nodes}"
        raise Refusal(f"{told}, and this one, {here}, must be among the first {nodes}; mend the file")
    return found[:nodes]


def by_ssh(nodes: list[str], words: list[str]) -> list[list[str]]:
    """The command for each node: the words as they are for this one, through ssh for the others."""
    told = [f"{name}={value}" for name, value in handed_on().items()]
    there = f"cd {shlex.quote(str(ROOT))} && exec {shlex.join(['env', *told, *words])}"
    here = socket.gethostname()
    return [words if name == here else ["ssh", "-o", "BatchMode=yes", name, there] for name in nodes]


def one_of_several(key: str, stage: str, argv: list[str]) -> None:
    """The stage in one process of torchrun, which the guard started. Raises Refusal on a node with other code."""
    from stages.guard.params import load

    if os.environ["LOCAL_RANK"] == "0":
        checks.check_node(stage, key)
    if os.environ["RANK"] != "0":
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (for good): one summary line per stage
    module = importlib.import_module(f"stages.{stage}")
    module.main(load(ROOT / "params.yaml"), **options.parse(argv, options.ports(module.main)[0]))
    leave_the_group()


def leave_the_group() -> None:
    """End the threads of torch's process group while Python still runs: one that lets go of its last tensor after that
    aborts the process, with the training done (2 of 60 runs on two busy cores).
    """
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()
