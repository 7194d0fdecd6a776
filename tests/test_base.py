"""The base model that people bring: a folder at its digest, its own template, tokens without a row; pi_0 as it is."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages import chat
from stages.training import base, digest, sft, template
from tests.conftest import pairs

NO_TEMPLATE = Path("data/raw/templates/base")


def bring(folder: Path, model: Path, revision: str | None, own: Path = NO_TEMPLATE, **settings) -> Path:
    section = SimpleNamespace(model=str(folder), revision=revision, template_settings=settings, system_role="keep")
    base.main(SimpleNamespace(bases={"mine": section}, dtype="float32"), "mine", own, model=model)
    return model


@pytest.fixture
def own_model(tiny_model, tmp_path):
    """As somebody saved it: without what `base` writes beside a model."""
    folder = shutil.copytree(tiny_model, tmp_path / "own")
    (folder / template.FACTS).unlink()
    return folder


def test_a_folder_is_brought_at_its_digest_and_an_edited_file_is_another_model(own_model, tmp_path):
    pinned = digest.model(own_model)
    made = bring(own_model, tmp_path / "base", pinned)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (own_model, made)]
    assert weights[0] == weights[1]
    for revision in (None, "0" * 32):
        told = rf"revision = {revision!r}, and the files of .*own have the digest {pinned}; set it to that"
        with pytest.raises(ValueError, match=told):
            bring(own_model, tmp_path / "again", revision)
    config = json.loads((own_model / "config.json").read_text())
    (own_model / "config.json").write_text(json.dumps(config | {"rope_theta": 1.0}))
    with pytest.raises(ValueError, match="or bring back the files"):
        bring(own_model, tmp_path / "again", pinned)


def test_a_hub_model_without_its_commit_is_refused_with_the_tool_that_finds_it(tmp_path):
    with pytest.raises(ValueError, match=r"owner/name is no folder here, .* run `python -m stages.tools.pin`"):
        bring(Path("owner/name"), tmp_path / "base", "main")


def test_rows_of_the_embedding_that_no_token_uses_stay_and_every_token_has_one(own_model, tmp_path):
    """320 rows, 259 tokens, one of them at id 300: a tokenizer may leave ids unused, and rows are never taken away."""
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(own_model)
    network.resize_token_embeddings(320)
    network.save_pretrained(own_model)
    content = json.loads((own_model / "tokenizer.json").read_text(encoding="utf-8"))
    moved = content["added_tokens"][1]
    content["model"]["vocab"][moved["content"]] = moved["id"] = 300
    (own_model / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    made = bring(own_model, tmp_path / "base", digest.model(own_model))
    rows = AutoModelForCausalLM.from_pretrained(made).get_input_embeddings().num_embeddings
    assert rows == 320 and max(chat.prompt_ids(chat.load_tokenizer(made), chat.ASKED)) == 300


def test_a_template_of_ones_own_replaces_the_models_and_its_settings_stand_in_front(own_model, tmp_path):
    (tmp_path / "templates").mkdir()
    own = tmp_path / "templates/mine.jinja"
    own.write_text(base.CHATML.replace("{% for", "{% if shout %}LOUD{% endif %}{% for", 1), encoding="utf-8")
    pinned = digest.model(own_model)
    for given in (own, own.parent):
        made = bring(own_model, tmp_path / f"base-{given.name}", pinned, given, shout=True)
        assert (
            chat.load_tokenizer(made).decode(chat.prompt_ids(chat.load_tokenizer(made), chat.ASKED)).startswith("LOUD")
        )
    shutil.copy(own, tmp_path / "templates/other.jinja")
    with pytest.raises(ValueError, match=r"holds mine.jinja and other.jinja; `template` names one of them"):
        bring(own_model, tmp_path / "again", pinned, own.parent)


def test_without_sft_pi0_is_the_base_model_byte_for_byte_and_says_so(tiny_model, tmp_path, capsys):
    rows = [{name: pair[name] for name in ("prompt", "chosen", "chosen_finished")} for pair in pairs(5)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    out = {"policy": tmp_path / "pi0", "curve": tmp_path / "c.csv", "metrics": tmp_path / "m.json"}
    sft.main(SimpleNamespace(sft=SimpleNamespace(rows=0)), tiny_model, tmp_path / "d.parquet", **out)
    assert digest.model(tmp_path / "pi0") == digest.model(tiny_model)
    facts = json.loads(out["metrics"].read_text())
    assert (facts["rows_in"], facts["rows_out"], facts["drops"]) == (5, 0, {"over_rows": 5})
    assert "as it is, since sft.rows = 0; 5 demonstrations are left out" in capsys.readouterr().out
