"""A reward model that others trained: what is asked of it, and that a row is read as its own template renders it."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from stages import chat
from stages.guard import feasible
from stages.guard.refusal import Refusal
from stages.signals import workers
from stages.signals.batching import Layout
from stages.training import base, digest, pretrained
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
    own.write_text(base.CHATML.replace("'<|im_end|>' + '\n'", "'<|im_end|>'"), encoding="utf-8")
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
    own.write_text(refuses + base.CHATML, encoding="utf-8")
    brought = bring(own_reward, tmp_path / "reward", own)
    folded = [
        {"role": "user", "content": "Be brief.\n\nAnd snow?"},
        {"role": "assistant", "content": "It is frozen water."},
    ]
    assert rewards(brought, ROWS)[2] == pytest.approx(as_its_authors_do(brought, folded), abs=1e-5)


def test_a_conversation_that_the_template_refuses_is_named(own_reward, tmp_path):
    refuses = "{% if messages|length > 2 %}{{ raise_exception('one turn only') }}{% endif %}"
    own = tmp_path / "own.jinja"
    own.write_text(refuses + base.CHATML, encoding="utf-8")
    brought = bring(own_reward, tmp_path / "reward", own)
    talk = [("user", "a"), ("assistant", "b"), ("user", "c")]
    row = ROWS[0] | {"id": "r", "prompt": [{"role": role, "content": content} for role, content in talk]}
    with pytest.raises(
        ValueError, match=r"row r: .* refuses user assistant user assistant: one turn only .*\(pretrained\.template\)"
    ):
        rewards(brought, [row])


@pytest.mark.parametrize("folds", [False, True])
def test_a_reward_model_whose_template_takes_less_than_the_policys_is_refused_before_anything_is_trained(
    tmp_path, folds
):
    contracts = {
        "policy": {"refused": {"several_turns": "one only"}, "fold_system": folds},
        "ranker": {"refused": {"system_role": "none here", "several_turns": "nor here"}, "fold_system": False},
    }
    for name, facts in contracts.items():
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "text_contract.json").write_text(json.dumps(facts))
    params = SimpleNamespace(start_from=SimpleNamespace(policy="policy", reward_model="ranker"))
    if folds:
        return feasible.check_forms(params, tmp_path)
    told = r"models/ranker takes no system_role \(none here\), .*set bases.policy.system_role = fold"
    with pytest.raises(Refusal, match=told):
        feasible.check_forms(params, tmp_path)


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
def test_the_profile_gpu_makes_its_first_pairs_from_stand_ins_of_the_same_form(clone, tiny_model, own_reward):
    """An instruct model as pi0 without SFT, a pretrained ranker and proxy, UltraFeedback's form; folders for a hub,
    few rows and tokens. No reward model is trained.
    """
    base = shutil.copytree(tiny_model, clone / "own_base")
    (base / "text_contract.json").unlink()
    reward = shutil.copytree(own_reward, clone / "own_reward")
    answers = [
        {"response": f"{word} is my answer", "fine-grained_score": score} for score, word in enumerate("abcd", 1)
    ]
    rated = [{"instruction": f"Question number {k}?", "completions": answers} for k in range(40)]
    asked = [{"context_messages": [{"role": "user", "content": f"Tell me about {k}"}]} for k in range(30)]
    for name, rows in (("rated", rated), ("asked", asked)):
        (clone / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = [
        *(f"bases.base.model={base.name}", f"bases.base.revision={digest.model(base)}"),
        *(f"pretrained.model={reward.name}", f"pretrained.revision={digest.model(reward)}"),
        *("mix.ultrafeedback.raw=rated.jsonl", "prompts.raw=asked.jsonl", "filter.near_duplicates=0.0"),
        *("prompts.per_iteration=6", "prompts.validation=4", "prompts.test=6", "prompts.max_tokens=100"),
        *("generate.max_new_tokens=12", "dpo.max_tokens=128", "runtime.engine_cpu_cache_gib=1", "dtype=float32"),
    ]
    done = sh(f"python -m stages.tools.profile gpu {' '.join(settings)}", clone)
    assert done.returncode == 0, done.stderr
    (clone / "dvc.lock").unlink()  # the quickstart's, which each stage would write again
    done = sh("dvc --wait-for-lock repro rank@t0 signal_pretrained@pretrained", clone)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    ran = {line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")}
    assert {"sft", "pretrained@pretrained", "score_pretrained@t0-pretrained", "rank@t0"} <= ran
    assert not {name for name in ran if "reward_model" in name} and not (clone / "models/reward").exists()
    assert digest.model(clone / "models/pi0") == digest.model(clone / "models/base")
    ranked = json.loads((clone / "data/rank/pi0.json").read_text(encoding="utf-8"))
    assert ranked["rows_in"] == 6 and ranked["candidates"] == 48
    assert json.loads((clone / "metrics/signals/pretrained.json").read_text())["heldout"]["labels"]["pairs"] > 5
