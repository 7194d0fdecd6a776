"""Artifacts through real servers: S3 (rclone) and SSH (asyncssh), another machine standing as a fresh clone with an
empty cache.
"""

import json
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import sh
from tests.trust.edits import sub

pytestmark = pytest.mark.slow
KEY, SECRET = "quickstart-key", "do-not-commit-4711"
SSH_SERVER = """
import asyncio, asyncssh, sys
async def main():
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key("client"); key.write_public_key("client.pub")
    host = asyncssh.generate_private_key("ssh-ed25519")
    await asyncssh.listen("127.0.0.1", int(sys.argv[1]), server_host_keys=[host],
                          authorized_client_keys="client.pub", sftp_factory=True)
    await asyncio.get_event_loop().create_future()
asyncio.run(main())
"""

KILLED = """
import os, signal, sys
from importlib import import_module
from dvc.cli import main
module, owner, method, number, *words = sys.argv[1:]
owner = getattr(import_module(module), owner)
whole, calls = getattr(owner, method), []
def counted(*given, **named):
    calls.append(1)
    if len(calls) == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*given, **named)
setattr(owner, method, counted)
sys.exit(main(words))
"""


class Server(NamedTuple):
    """A running server: its files, and the commands that make it a clone's remote."""

    store: Path
    commands: list[str]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int) -> None:
    end = time.monotonic() + 30
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert time.monotonic() < end, "the server did not come up"
        time.sleep(0.1)


def s3(folder: Path, port: int) -> tuple[list[str], list[str]]:
    """The words that start an S3 server, and the commands that make it a remote."""
    (folder / "store/bucket").mkdir(parents=True)
    rclone = str(Path(sys.executable).with_name("rclone"))
    words = [
        rclone,
        "serve",
        "s3",
        str(folder / "store"),
        "--addr",
        f"127.0.0.1:{port}",
        "--auth-key",
        f"{KEY},{SECRET}",
        "--vfs-cache-mode",
        "writes",
    ]
    options = [f"endpointurl http://127.0.0.1:{port}", "region us-east-1"]
    return words, [
        "dvc remote add --default --force shared s3://bucket/rlhf",
        *(f"dvc remote modify --local shared {option}" for option in options),
    ]


def ssh(folder: Path, port: int) -> tuple[list[str], list[str]]:
    """The same for SSH, with a key of its own."""
    (folder / "store").mkdir()
    url = f"ssh://me@127.0.0.1:{port}{folder}/store"
    commands = [
        f"dvc remote add --default --force shared {url}",
        f"dvc remote modify --local shared keyfile {folder}/client",
    ]
    return [sys.executable, "-c", SSH_SERVER, str(port)], commands


@pytest.fixture(params=[s3])
def server(request, tmp_path, monkeypatch) -> Iterator[Server]:
    """S3, and SSH where a test asks for it."""
    folder, port = tmp_path / "server", free_port()
    folder.mkdir()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    words, commands = request.param(folder, port)
    running = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(port)
    yield Server(folder / "store", commands)
    running.kill()


def run(command: str, folder: Path) -> str:
    done = sh(command, folder)
    assert done.returncode == 0, f"{command}: {done.stdout[-1500:]}{done.stderr[-1500:]}"
    return done.stdout + done.stderr


@pytest.fixture
def mine(own_smoke, server) -> Path:
    """My machine: the finished run, committed, with the server as its remote."""
    for command in [*server.commands, "git add -A", "git commit -qm run"]:
        run(command, own_smoke)
    return own_smoke


def another_machine(mine: Path, server: Server, name: str) -> Path:
    folder = mine.parent / name
    run(
        f"git clone -q {mine} {folder} && git -C {folder} config user.name t && git -C {folder} config user.email t@t",
        mine,
    )
    for command in server.commands:
        run(command, folder)
    return folder


def stages_run(output: str) -> set[str]:
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def stored(store: Path, clone: Path, stage: str, file: str) -> tuple[Path, Path]:
    """Where the store keeps the list of a stage's model folder, and one file of it."""
    from ruamel.yaml import YAML

    lock = YAML(typ="safe").load(clone / "dvc.lock")["stages"][stage]["outs"]
    folder = next(out["md5"] for out in lock if out["path"].startswith("models/"))
    listing = next(store.rglob(f"md5/{folder[:2]}/{folder[2:]}"))
    md5 = next(entry["md5"] for entry in json.loads(listing.read_text()) if entry["relpath"] == file)
    return listing, next(store.rglob(f"md5/{md5[:2]}/{md5[2:]}"))


OWN_WORDS = [
    "dvc status",
    "dvc push",
    "dvc pull",
    "dvc checkout",
    "dvc gc --workspace --force",
    "dvc metrics show",
    "dvc exp show --no-pager",
]
"""What a colleague types first. Each must end well and find nothing to complain of."""


def test_dvcs_own_words_are_clean_in_the_workspace_and_in_a_fresh_clone(mine, server):
    run("dvc push", mine)
    theirs = another_machine(mine, server, "theirs")
    assert "fetched" in run("dvc pull", theirs)
    for folder in (mine, theirs):
        for words in OWN_WORDS:
            said = run(words, folder)
            assert not re.search(r"error|missing|deleted|modified|failed", said, re.IGNORECASE), (words, said)
        assert "up to date" in run("dvc status", folder)
        assert not run("git status --porcelain", folder)
    run("git add -A", mine)
    found = sh(f"git grep --cached -e {KEY} -e {SECRET} -- . :!tests/test_sharing.py", mine)
    assert found.returncode == 1 and not found.stdout  # no tracked file holds the credentials


def test_a_fresh_clone_runs_nothing_and_an_edit_of_the_last_stage_fetches_only_its_inputs(mine, server):
    run("dvc push --run-cache", mine)
    theirs = another_machine(mine, server, "theirs")
    assert not stages_run(run("dvc --wait-for-lock repro --pull", theirs))
    assert (theirs / "metrics/table.md").read_text() == (mine / "metrics/table.md").read_text()
    assert "up to date" in run("dvc status", theirs)

    small = another_machine(mine, server, "small")
    sub("stages/evaluation/report_policies.py", '"wins over', '"won over')(small)
    assert stages_run(run("dvc --wait-for-lock repro --allow-missing --pull", small)) == {"fingerprint", "report"}
    assert "won" in (small / "metrics/table.md").read_text()
    fetched = {
        str(path.relative_to(small))
        for path in (small / "data").rglob("*")
        if path.is_file() and "raw" not in path.parts
    }
    assert not fetched and not (small / "models").exists()  # all that the report reads is in git


def killed(words: str, where: str, folder: Path) -> None:
    """Run DVC with these words until it kills itself: at a call of a method, by its number."""
    assert sh(f"python -c {shlex.quote(KILLED)} {where} {words}", folder).returncode in (-9, 137)


def test_a_push_and_a_pull_that_were_killed_are_repaired_by_typing_them_again(mine, server):
    whole, push = "--wait-for-lock repro --pull", "push --run-cache"
    for words, folder, where in (
        (push, mine, "s3fs S3FileSystem _put_file 30"),  # of 58; the run-cache's 45 are sent before
        ("pull", another_machine(mine, server, "theirs"), "s3fs S3FileSystem _get_file 20"),  # of 60
        (whole, another_machine(mine, server, "others"), "s3fs S3FileSystem _get_file 5"),  # of 9
    ):
        killed(words, where, folder)
        run(f"dvc {words}", folder)
    assert "in sync" in run("dvc status --cloud", mine)
    for name in ("theirs", "others"):
        assert not stages_run(run(f"dvc {whole}", mine.parent / name))
        assert "verified" in run("python -m stages.tools.verify", mine.parent / name)


def test_a_push_and_a_pull_that_were_killed_while_they_collected_are_repaired_by_collecting_anew(mine, server):
    """DVC 3.67.1 takes what it had collected for the whole, and a push does not tell."""
    collecting = "dvc_data.index DataIndex commit 20"
    for said in (" files pushed", "Everything is up to date"):
        killed("push", collecting, mine)
        assert said in run("dvc push", mine)
    assert "new:" in run("dvc status --cloud", mine)
    run("DVC_SITE_CACHE_DIR=$(mktemp -d) dvc push --run-cache", mine)
    assert "in sync" in run("dvc status --cloud", mine)

    theirs = another_machine(mine, server, "theirs")
    killed("pull", collecting, theirs)
    run("DVC_SITE_CACHE_DIR=$(mktemp -d) dvc pull", theirs)
    assert "verified" in run("python -m stages.tools.verify", theirs)


@pytest.mark.parametrize("server", [ssh], indirect=True)  # its store is plain files, which can be damaged from outside
def test_a_damaged_model_is_named_before_it_is_used_made_again_and_mended_in_the_remote(mine, server):
    """And with `verify` a damaged object does not even arrive."""
    run("dvc push --run-cache", mine)
    listing, weights = stored(server.store, mine, "reward_model@reward_model", "model.safetensors")
    whole = weights.read_bytes()
    weights.chmod(0o644)
    weights.write_bytes(whole[:-4] + b"\0\1\2\3")
    theirs = another_machine(mine, server, "theirs")
    assert not stages_run(run("dvc pull && dvc --wait-for-lock repro", theirs))  # DVC itself sees nothing
    words = "--reward models/reward --candidates data/candidates/judged --scores data/scores/reward_model/judged"
    refused = sh(f"python -m stages.guard.run signals.scorers.reward_model {words}", theirs)
    cached = f".dvc/cache/files/md5/{weights.parent.name}/{weights.name}"
    assert refused.returncode == 1 and refused.stderr.startswith(
        "signals.scorers.reward_model: models/reward/model.safetensors is damaged or edited: "
    )
    assert (
        f"`rm -rf models/reward {cached}`" in refused.stderr
        and "models/reward has md5" in sh("python -m stages.tools.verify", theirs).stderr
    )

    run(f"rm -rf models/reward {cached}", theirs)
    assert stages_run(run("dvc --wait-for-lock repro", theirs)) == {"reward_model@reward_model"}
    for part in (weights, listing):
        part.unlink()
    run("dvc push", theirs)
    assert weights.read_bytes() == whole and "verified" in run("python -m stages.tools.verify", theirs)

    pairs = next(server.store.rglob(f"md5/{md5_of(mine / 'data/pairs/pi0.parquet')}"))
    pairs.chmod(0o644)
    pairs.write_bytes(pairs.read_bytes()[:-100])
    last = another_machine(mine, server, "last")
    run("dvc remote modify --local shared verify true", last)
    refused = sh("dvc pull data/pairs/pi0.parquet", last)
    assert refused.returncode != 0 and "data/pairs/pi0.parquet" in refused.stderr
    assert not (last / "data/pairs/pi0.parquet").exists()


def md5_of(path: Path) -> str:
    from stages.guard import integrity

    digest = integrity.md5(path)
    return f"{digest[:2]}/{digest[2:]}"


def test_two_branches_meet(mine, server):
    """Each branch ran its own edit; after the merge only what both edits touch together runs."""
    run("dvc push --run-cache", mine)
    theirs = another_machine(mine, server, "theirs")
    sub("stages/evaluation/report_pairs.py", "median margin", "middle margin")(theirs)
    run("git checkout -qb theirs && dvc pull && dvc --wait-for-lock repro", theirs)
    run("git commit -qam width && dvc push --run-cache && git push -q origin theirs", theirs)
    sub("stages/evaluation/report_policies.py", '"wins over', '"won over')(mine)
    run("dvc --wait-for-lock repro && git commit -qam wording", mine)
    assert sh("git merge theirs", mine).returncode == 1
    run("git checkout --ours dvc.lock code.lock.yaml metrics", mine)
    ran = stages_run(run("dvc --wait-for-lock repro --pull", mine))
    assert ran <= {"fingerprint", "report"}
    run("git add -A && git commit -qm merge", mine)
    assert "won" in (mine / "metrics/table.md").read_text() and "up to date" in run("dvc status", mine)
