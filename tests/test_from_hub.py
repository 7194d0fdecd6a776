"""A reward model of a hub, against a stand-in that serves one: fetched at its commit, no pickle, the folder's own
rewards.
"""

import hashlib
import json
import os
import re
from types import SimpleNamespace

import pytest

from tests.conftest import ROOT, StandIn, serving, sh
from tests.test_pretrained import bring, own_reward, rewards  # noqa: F401  the fixture

COMMIT = "c0ffee" + "0" * 34


@pytest.fixture
def hub():
    """A stand-in of the hub with one model, whose files are put into `files`: name to bytes. Its address is `url`."""
    held = SimpleNamespace(files={}, url="", asked=[])

    class Handler(StandIn):
        def do_GET(self) -> None:
            held.asked.append(self.path)
            name = self.path.partition(f"/resolve/{COMMIT}/")[2]
            if name in held.files:
                return self.answer(held.files[name], ETag=f'"{hashlib.sha1(held.files[name]).hexdigest()}"')
            if self.path.startswith("/api/models/owner/model"):
                files = [
                    {"rfilename": name, "path": name, "type": "file", "size": len(held.files[name]), "oid": name}
                    for name in held.files
                ]
                found = files if "/tree/" in self.path else {"id": "owner/model", "sha": COMMIT, "siblings": files}
                return self.answer(json.dumps(found).encode())
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()

        do_HEAD = do_GET

        def answer(self, body: bytes, **headers: str) -> None:
            self.send_response(200)
            for name, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    with serving(Handler) as url:
        held.url = url
        yield held


@pytest.mark.slow
def test_a_reward_model_of_the_hub_is_fetched_at_its_commit_and_rated_as_its_folder_is(
    own_reward,  # noqa: F811
    hub,
    tmp_path,
):
    hub.files = {path.name: path.read_bytes() for path in own_reward.iterdir()} | {"pytorch_model.bin": b"a pickle"}
    bench = tmp_path / "bench.jsonl"
    rows = [{"prompt": f"q{k}", "chosen": "yes " * k, "rejected": "no"} for k in range(1, 6)]
    bench.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    offline = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
    done = sh(f"python -m stages.tools.rate owner/model@{COMMIT} {bench}", ROOT, env=os.environ | offline)
    assert done.returncode == 0, done.stderr[-2000:]
    brought = bring(own_reward, tmp_path / "reward")
    pairs = [(score(brought, row, "chosen"), score(brought, row, "rejected")) for row in rows]
    right = sum(chosen > rejected for chosen, rejected in pairs)
    assert re.search(rf"\| bench \| 5 \| {100 * right / 5:.1f} ", done.stdout), done.stdout
    assert not any("pytorch_model.bin" in path for path in hub.asked if "/resolve/" in path)
    loose = sh(f"python -m stages.tools.rate owner/model@main {bench}", ROOT, env=os.environ | offline)
    assert "needs its commit, so that the number can be repeated: owner/model@<40 digits>" in loose.stderr


def score(model, row, side):
    answer = {"id": side, "prompt": [{"role": "user", "content": row["prompt"]}], "completion": row[side]}
    return rewards(model, [answer | {"finished": True}])[0]
