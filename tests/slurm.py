"""A real Slurm of two nodes on this machine, as long as a test lasts. It needs Debian's `slurm-wlm` and `munge`."""

import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from stages.guard.launch import free_port
from tests.conftest import wait_for

PLACES = f"{os.environ['PATH']}:/usr/sbin"
DAEMONS = ("munged", "slurmctld", "slurmd")
CONF = """ClusterName=here
SlurmctldHost={host}
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/state/pid
SlurmdPidFile={folder}/%n/pid
ProctrackType=proctrack/linuxproc
SelectType=select/linear
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]}
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]}
PartitionName=both Nodes=one,two Default=YES
"""


def is_here() -> bool:
    return all(shutil.which(name, path=PLACES) for name in DAEMONS)


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """The variables that its commands take."""
    for name in ("state", "one", "two"):
        (folder / name).mkdir()
    (folder / "key").write_bytes(os.urandom(64))
    (folder / "key").chmod(0o600)
    known = {"host": socket.gethostname(), "user": getpass.getuser(), "folder": folder}
    told = CONF.format(ports=[free_port() for _ in range(3)], **known)
    (folder / "slurm.conf").write_text(told, encoding="utf-8")
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    munge = [f"--{name}-file={folder / name}" for name in ("key", "pid", "log", "seed")]
    with ExitStack() as stack:
        for command in (
            ["munged", "--foreground", "--force", f"--socket={folder}/munge", *munge],
            ["slurmctld", "-D"],
            ["slurmd", "-D", "-N", "one"],
            ["slurmd", "-D", "-N", "two"],
        ):
            stack.enter_context(daemon(command, folder, environment))
        wait_for(lambda: "idle~2" in asked(environment))
        yield environment


@contextmanager
def daemon(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    with (folder / "log.txt").open("a") as log:
        variables = os.environ | environment | {"PATH": PLACES}
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def asked(environment: dict[str, str]) -> str:
    """State~number of nodes."""
    command = ["sinfo", "--noheader", "--format=%T~%D"]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True).stdout
