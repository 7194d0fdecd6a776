"""A reward model that others trained: what is asked of it, and that a row is read as its own template renders it."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from stages import chat
from stages.signals import workers
from stages.signals.batching import Layout
from stages.training import digest, origins, pretrained
from tests.conftest import sh

LAYOUT = Layout(threads=1, forward_batch_tokens=256)
ROWS = [
    {"id": "p", "prompt": [{"role": "user", "content": "What is rain?"}], "completion": "Water.", "finished": True},
    {"id": "p", "prompt": [{"role": "user", "content": "What is rain?"}], "completion": "Wat", "finished": False},
    {
        "id": "q",
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "And snow?"}],
        "completion": "It is frozen water.",
        "finished": True,
    },
]


@pytest.fixture
def own_reward(tiny_model, tmp_path):
    """As hubs hold them: another context, a padding token that is the end of a turn, whose template the head has read
    with the line break behind it.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path / "own"
    network = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.pad_token = "<|im_end|>"
    network.config.max_position_embeddings = 512
    network.config.pad_token_id = tokenizer.pad_token_id
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def bring(folder: Path, out: Path, template: Path = Path("data/raw/templates/pretrained"), **settings) -> Path:
    section = SimpleNamespace(model=str(folder), revision=digest.model(folder), template_settings=settings)
    pretrained.main(SimpleNamespace(pretrained=section, dtype="float32"), template, reward=out)
    return out


def rewards(model: Path, rows: list[dict]) -> list[float]:
    score = workers.Rewards(model, "float32", LAYOUT).load()
    return [row["reward"] for row in score(rows, lambda done: None)]


def as_its_authors_do(model: Path, conversation: list[dict]) -> float:
    """One conversation, no padding, rendered by the tokenizer's own template."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    network = AutoModelForSequenceClassification.from_pretrained(model).eval()
    ids = AutoTokenizer.from_pretrained(model).apply_chat_template(conversation, return_dict=False)
    with torch.inference_mode():
        return float(network(input_ids=torch.tensor([ids])).logits[0, 0])


def test_a_row_is_the_whole_conversation_as_the_models_own_template_renders_it(own_reward, tmp_path):
    brought = bring(own_reward, tmp_path / "reward")
    whole = [[*row["prompt"], {"role": "assistant", "content": row["completion"]}] for row in ROWS]
    wanted = [as_its_authors_do(own_reward, conversation) for conversation in whole]
    assert rewards(brought, ROWS) == pytest.approx(wanted, abs=1e-5) and len(set(wanted)) == 3
    facts = json.loads((brought / pretrained.FACTS).read_text(encoding="utf-8"))
    assert facts == {"refused": {}, "context": 512}


def test_the_padding_token_is_not_the_one_that_a_conversation_ends_with(own_reward, tmp_path):
    """Else the head would read the token before the last one."""
    own = tmp_path / "ends.jinja"
    own.write_text(origins.TEMPLATE.replace("'<|im_end|>' + '\n'", "'<|im_end|>'"), encoding="utf-8")
    brought = bring(own_reward, tmp_path / "reward", own)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(brought)
    last = chat.rendered(tokenizer, chat.ANSWERED)[-1]
    assert tokenizer.convert_ids_to_tokens(last) == "<|im_end|>" and tokenizer.pad_token_id != last
    whole = [[*row["prompt"], {"role": "assistant", "content": row["completion"]}] for row in ROWS]
    wanted = [as_its_authors_do(brought, conversation) for conversation in whole]
    assert rewards(brought, ROWS) == pytest.approx(wanted, abs=1e-5)


def test_what_the_system_says_stands_in_the_first_turn_where_the_template_takes_no_system_role(own_reward, tmp_path):
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    own = tmp_path / "own.jinja"
    own.write_text(refuses + origins.TEMPLATE, encoding="utf-8")
    brought = bring(own_reward, tmp_path / "reward", own)
    folded = [
        {"role": "user", "content": "Be brief.\n\nAnd snow?"},
        {"role": "assistant", "content": "It is frozen water."},
    ]
    assert rewards(brought, ROWS)[2] == pytest.approx(as_its_authors_do(brought, folded), abs=1e-5)


def test_a_conversation_that_the_template_refuses_is_named(own_reward, tmp_path):
    refuses = "{% if messages|length > 2 %}{{ raise_exception('one turn only') }}{% endif %}"
    own = tmp_path / "own.jinja"
    own.write_text(refuses + origins.TEMPLATE, encoding="utf-8")
    brought = bring(own_reward, tmp_path / "reward", own)
    talk = [("user", "a"), ("assistant", "b"), ("user", "c")]
    row = ROWS[0] | {"id": "r", "prompt": [{"role": role, "content": content} for role, content in talk]}
    with pytest.raises(ValueError, match=r"its chat template refuses the prompt r \(one turn only\); bring a template"):
        rewards(brought, [row])


def test_what_is_no_reward_model_is_refused_with_the_reason(own_reward, tiny_model, tmp_path):
    from transformers import AutoModelForSequenceClassification

    with pytest.raises(ValueError, match=r"outputs, \d+ of its weights are not in the files; name a reward model"):
        bring(tiny_model, tmp_path / "again")
    two = shutil.copytree(own_reward, tmp_path / "two")
    AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2).save_pretrained(two)
    with pytest.raises(ValueError, match="its head has 2 outputs, 0 of its weights are not in the files"):
        bring(two, tmp_path / "again")
    (own_reward / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match=r"has no chat template; put its own into data/raw/templates/pretrained"):
        bring(own_reward, tmp_path / "again")


@pytest.mark.slow
def test_a_pretrained_model_ranks_and_is_the_proxy_and_no_reward_model_is_trained(own_smoke):
    """A model that the run itself trained, from outside: a folder at its digest."""
    shutil.copytree(own_smoke / "models/reward", own_smoke / "own_reward")
    ranked = "rank.scorer=pretrained 'signals.pretrained=[pretrained]' 'signals.reward_model=[]'"
    brought = "evaluate.proxy=pretrained pretrained.model=own_reward"
    pinned = f"pretrained.revision={digest.model(own_smoke / 'own_reward')}"
    done = sh(f"python -m stages.tools.profile smoke {ranked} {brought} {pinned}", own_smoke)
    assert done.returncode == 0, done.stderr
    done = sh("dvc --wait-for-lock repro rank@t0 signal_pretrained@pretrained measure_first@pi0", own_smoke)
    assert done.returncode == 0, done.stderr[-2000:]
    ran = {line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")}
    assert {"pretrained@pretrained", "score_pretrained@t0-pretrained", "rank@t0", "measure_first@pi0"} <= ran
    assert not {name for name in ran if "reward_model" in name or "sft" in name or "generate" in name}
    assert json.loads((own_smoke / "metrics/signals/pretrained.json").read_text())["heldout"]["labels"]["pairs"] > 100
    assert "reward_model@" not in sh("dvc stage list --name-only", own_smoke).stdout
