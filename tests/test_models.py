"""Forward passes and trainers on a tiny random model, against formulas worked by hand and against TRL itself."""

import json
import math
import os
import shutil
from importlib.util import find_spec
from statistics import fmean
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages import chat
from stages.pairs import offline
from stages.signals import batching, forward, pairwise
from stages.training import checkpoints, dpo, harness, preference_model, reference, reward_model, sft
from tests.conftest import log_probabilities, pairs, sides


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120))
def test_batches_hold_every_row_once_and_keep_the_token_limit(lengths, limit):
    made = list(batching.batches(lengths, limit))
    assert sorted(i for batch in made for i in batch) == list(range(len(lengths)))
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= limit for b in made)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50)), max_size=40), st.integers(1, 120))
def test_a_groups_batches_are_the_same_whatever_other_groups_there_are(rows, limit):
    names, lengths = [name for name, _ in rows], [length for _, length in rows]
    made = list(batching.batches(lengths, limit, names))
    for name in set(names):
        own = [i for i in range(len(rows)) if names[i] == name]
        alone = [[own[k] for k in batch] for batch in batching.batches([lengths[i] for i in own], limit)]
        assert [batch for batch in made if names[batch[0]] == name] == alone


def test_log_probabilities_are_the_sum_over_the_answers_tokens(tiny_model, runtime):
    from transformers import AutoModelForCausalLM

    rows = sides(tiny_model, pairs(5))
    network = AutoModelForCausalLM.from_pretrained(tiny_model)
    expected = []
    for prompt, completion in rows:
        with torch.inference_mode():
            logs = network(torch.tensor([prompt + completion])).logits[0].log_softmax(-1)
        expected.append(sum(float(logs[len(prompt) + k - 1, token]) for k, token in enumerate(completion)))
    values = forward.logprobs(tiny_model, "float32", runtime, alone=False)
    assert values(rows, ["x"] * len(rows), lambda done: None) == pytest.approx(expected, abs=1e-3)


LOSS = {
    "loss": ["sigmoid"],
    "loss_weights": [1.0],
    "beta": 0.1,
    "label_smoothing": 0.0,
    "f_divergence": "reverse_kl",
    "f_alpha": 0.5,
    "ld_alpha": None,
    "discopop_tau": 0.05,
    "simpo_gamma": 0.5,
    "lora_rank": 0,
    "lora_alpha": 16.0,
    "quantized": False,
    "half": False,
}


def settings(runtime, **changes):
    section = {"learning_rate": 1e-3, "epochs": 1, "global_batch_rows": 4, "warmup_share": 0.0, "max_tokens": 128}
    section |= changes
    reward = {"layers": None, "margin": 0.0, "centring": 0.0, "validation_share": 0.0, "evaluations": 0}
    return SimpleNamespace(
        seed=1,
        dtype="float32",
        runtime=runtime,
        sft=SimpleNamespace(**({"rows": None, "turns": "last", "packing": False} | section)),
        dpo=SimpleNamespace(**(section | LOSS | changes)),
        reward_model=SimpleNamespace(**(reward | section)),
        preference_model=SimpleNamespace(**({"layers": None, "packing": False} | section)),
    )


def weights(folder) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def train_dpo(model, history, runtime, out, **changes):
    """The loss of each step; the model is its own reference."""
    params = settings(runtime, **changes)
    files = {"policy": out, "curve": out.with_suffix(".csv"), "metrics": out.with_suffix(".json")}
    dpo.main(params, model, model, model, history, **files)
    lines = out.with_suffix(".csv").read_text().splitlines()
    column = lines[0].split(",").index("loss")
    return [float(line.split(",")[column]) for line in lines[1:]]


@pytest.mark.slow
def test_dpo_starts_at_log_2_moves_every_weight_and_leaves_pi0_alone(tiny_model, history, runtime, tmp_path):
    before = (tiny_model / "model.safetensors").read_bytes()
    losses = train_dpo(tiny_model, history, runtime, tmp_path / "policy")
    assert losses[0] == pytest.approx(math.log(2), abs=1e-3)  # the policy still is the reference: the margin is 0
    assert (tiny_model / "model.safetensors").read_bytes() == before
    start, end = weights(tiny_model), weights(tmp_path / "policy")
    assert start.keys() == end.keys() and all(not torch.equal(start[k], end[k]) for k in start)
    of_base = {"text_contract.json"}
    assert {p.name for p in (tmp_path / "policy").iterdir()} == {p.name for p in tiny_model.iterdir()} - of_base


@pytest.fixture
def curves(tmp_path, monkeypatch):
    """Where live curves lie; the trackers' variables are unset before and behind the test."""
    for name in ("TENSORBOARD_LOGGING_DIR", "TRACKIO_DIR", "WANDB_DIR", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    monkeypatch.setenv("STAGE_HOME", str(tmp_path / "home"))
    return tmp_path / "home/curves"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tracker", "where"),
    [("tensorboard", "training"), ("trackio", "trackio"), ("wandb", "wandb"), ("mlflow", "mlflow.db")],
)
def test_live_curves_lie_beside_the_run_and_touch_no_output(
    tracker, where, tiny_model, history, runtime, tmp_path, curves, monkeypatch
):
    if find_spec(tracker) is None:  # not importorskip: trackio looks for its folder when it is imported
        pytest.skip(f"{tracker} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    found = []
    for name in ("none", tracker):
        runtime.report_to, out = name, tmp_path / "out" / name
        train_dpo(tiny_model, history, runtime, out)
        files = sorted(path for path in out.parent.rglob("*") if path.is_file())
        found.append([path.read_bytes() for path in files])
        shutil.rmtree(out.parent)
    quiet, watched = found
    assert len(quiet) > 5 and quiet == watched
    assert (curves / where).exists()
    assert {p.name for p in tmp_path.iterdir()} == {"home", "history.parquet", "pairs.parquet"}


@pytest.mark.slow
def test_live_curves_show_rates_and_memory(tiny_model, history, runtime, tmp_path, curves):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runtime.report_to = "tensorboard"
    train_dpo(tiny_model, history, runtime, tmp_path / "policy")
    events = EventAccumulator(str(curves / "training"))
    events.Reload()
    told = set(events.Tags()["scalars"])
    assert {"train/loss", "train/grad_norm", "train/steps_per_minute", "train/memory_gib"} <= told


def test_trackers_are_told_a_place_that_they_take(curves, monkeypatch):
    """MLflow 3 takes a database and refuses a folder."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    assert harness.reporting("mlflow", None) == {"report_to": "mlflow", "run_name": "training"}
    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{curves}/mlflow.db"
    assert os.environ["TRACKIO_DIR"] == f"{curves}/trackio" and os.environ["WANDB_DIR"] == str(curves)


def test_a_tracker_that_is_not_installed_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"report_to = trackio, and no package trackio is installed; run `pip"):
        harness.reporting("trackio", None)


@pytest.mark.slow
def test_the_same_training_twice_gives_the_same_bytes(tiny_model, history, runtime, tmp_path):
    for name in ("one", "two"):
        train_dpo(tiny_model, history, runtime, tmp_path / name)
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("rows", [6, 8])
def test_the_order_of_rows_is_the_one_that_transformers_would_draw(tiny_model, history, runtime, tmp_path, rows):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    tokenizer, params = chat.load_tokenizer(tiny_model), settings(runtime, epochs=3)
    files = {"curve": tmp_path / "c.csv", "metrics": tmp_path / "c.json"}
    pq.write_table(table := pq.read_table(history).slice(0, rows), history)
    sft.main(params, tiny_model, history, policy=tmp_path / "ours", **files)
    tokens = [sft.tokenize(tokenizer, row, "last") for row in table.to_pylist() if row["chosen_finished"]]
    args = SFTConfig(**harness.arguments(params.sft, params, len(tokens)))
    network = AutoModelForCausalLM.from_pretrained(tiny_model, **harness.model_options())
    trainer = SFTTrainer(network, args=args, train_dataset=Dataset.from_list(tokens), processing_class=tokenizer)
    trainer.train()
    harness.save(trainer, tokenizer, tmp_path / "its", "float32")
    ours, its = weights(tmp_path / "ours"), weights(tmp_path / "its")
    assert all(torch.equal(value, ours[name]) for name, value in its.items())


@pytest.mark.slow
def test_the_reference_is_trls_own(tiny_model, history, runtime, tmp_path):
    """DPOTrainer without our columns computes the reference itself; the losses of both are the same."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    tokenizer = chat.load_tokenizer(tiny_model)
    rows = [dpo.tokenize(tokenizer, row) for row in pq.read_table(history).to_pylist()]
    params = settings(runtime)

    class Plain(DPOTrainer):
        def _prepare_dataset(self, dataset, *args, **kwargs):
            return dataset

    rows = [{name: row[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")} for row in rows]
    args = DPOConfig(**harness.arguments(params.dpo, params, len(rows)), beta=0.1)
    trainer = Plain(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train()
    expected = [step["loss"] for step in trainer.state.log_history if "loss" in step]
    assert len(expected) == 2
    assert train_dpo(tiny_model, history, runtime, tmp_path / "policy") == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "mean", "most"), [("float32", 1e-5, 1e-4), ("bfloat16", 4e-3, 0.03)])
def test_the_references_log_probabilities_are_those_that_trl_computes_beforehand(
    tiny_model, history, runtime, tmp_path, dtype, mean, most
):
    """In bfloat16 but for what padding moves: 0.002 nats in the mean, a sixth of what bfloat16 weights would."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    params = settings(runtime)
    params.dtype = dtype
    reference.main(params, tiny_model, history.with_name("pairs.parquet"), reference=history)
    tokenizer, known = chat.load_tokenizer(tiny_model), pq.read_table(history).to_pylist()
    rows = [{k: v for k, v in dpo.tokenize(tokenizer, row).items() if k.endswith("_ids")} for row in known]

    class Plain(DPOTrainer):
        def _prepare_dataset(self, dataset, *args, **kwargs):
            return dataset

    args = DPOConfig(**harness.arguments(params.dpo, params, len(rows)), precompute_ref_log_probs=True)
    data = Dataset.from_list(rows)
    data.save_to_disk(tmp_path / "rows")  # TRL keeps what it computes beside the data
    trainer = Plain(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        args=args,
        train_dataset=Dataset.load_from_disk(tmp_path / "rows"),
        processing_class=tokenizer,
    )
    for name in ("ref_chosen_logps", "ref_rejected_logps"):
        apart = [abs(theirs - row[name]) for theirs, row in zip(trainer.train_dataset[name], known, strict=True)]
        assert fmean(apart) <= mean and max(apart) <= most, apart
    low = log_probabilities(tiny_model, sides(tiny_model, known), "bfloat16", runtime)[: len(known)]
    assert fmean(abs(each - row["ref_chosen_logps"]) for each, row in zip(low, known, strict=True)) > 4e-3


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["robust", "exo_pair"])
def test_label_smoothing_changes_the_loss_where_it_is_allowed(tiny_model, history, runtime, tmp_path, loss):
    plain = train_dpo(tiny_model, history, runtime, tmp_path / "plain", loss=[loss], label_smoothing=0.01)
    smooth = train_dpo(tiny_model, history, runtime, tmp_path / "smooth", loss=[loss], label_smoothing=0.3)
    assert plain[1:] != pytest.approx(smooth[1:], abs=1e-4)


@pytest.mark.slow
def test_sft_and_reward_model_move_every_weight(tiny_model, history, runtime, tmp_path):
    params = settings(runtime)
    files = {"curve": tmp_path / "c.csv", "metrics": tmp_path / "c.json"}
    sft.main(params, tiny_model, history, policy=tmp_path / "pi0", **files)
    start, end = weights(tiny_model), weights(tmp_path / "pi0")
    assert all(not torch.equal(start[k], end[k]) for k in start)
    reward_model.main(params, tiny_model, history, 0, reward=tmp_path / "reward", **files)
    trained = weights(tmp_path / "reward")
    assert "score.weight" in trained and not torch.equal(
        trained["model.embed_tokens.weight"], start["model.embed_tokens.weight"]
    )


def fates(number: int) -> list[dict]:
    """Pairs on one prompt each, the first with an answer of 60 tokens, the second with one that was cut off."""
    rows = [row | {"prompt": [{"role": "user", "content": f"q{i}"}]} for i, row in enumerate(pairs(number))]
    rows[0]["chosen"] = [{"role": "assistant", "content": "y" * 60}]
    rows[1]["chosen_finished"] = False
    return rows


def test_demonstrations_are_left_out_by_name_and_add_up(tiny_model, tmp_path):
    """Of six answers one was cut off, one stands behind the first four that were not, one of those is too long."""
    pq.write_table(pa.Table.from_pylist(fates(6)), tmp_path / "shown.parquet")
    rows, drops = sft.chosen(
        tiny_model, tmp_path / "shown.parquet", SimpleNamespace(rows=4, turns="last", max_tokens=60)
    )
    assert drops == {"unfinished": 1, "over_rows": 1, "over_max_tokens": 1}
    assert harness.account(len(rows), drops, [[1, 0.5], [2, 0.25]]) == {
        "rows_in": 6,
        "rows_out": 3,
        "drops": drops,
        "steps": 2,
        "curve": [[1, 0.5], [2, 0.25]],
    }


@pytest.mark.slow
def test_every_training_accounts_for_its_rows_and_its_curve(tiny_model, runtime, tmp_path):
    """Of twelve pairs one is too long in sft and in both models, one was cut off, and some only validate the reward
    model; each of two epochs over the rest is a curve of steps of four.
    """
    rows, params = fates(12), settings(runtime, epochs=2, max_tokens=60)
    params.reward_model.validation_share, params.reward_model.evaluations = 0.3, 2
    params.preference_model.max_tokens = 300
    held = sum(reward_model.validates(row, 0.3) for row in rows[1:])
    tokenizer = chat.load_tokenizer(tiny_model)
    letters = pairwise.letters(tokenizer)
    lengths = [len(preference_model.tokenize(tokenizer, row, letters, 1)["input_ids"]) for row in rows]
    params.preference_model.max_tokens = max(lengths) - 1
    pq.write_table(pa.Table.from_pylist(rows, offline.SCHEMA), tmp_path / "rows.parquet")
    read = params, tiny_model, tmp_path / "rows.parquet"
    files = {name: {"curve": tmp_path / f"{name}.csv", "metrics": tmp_path / f"{name}.json"} for name in "srp"}
    sft.main(*read, policy=tmp_path / "s", **files["s"])
    reward_model.main(*read, 0, reward=tmp_path / "r", **files["r"])
    preference_model.main(*read, preference=tmp_path / "p", **files["p"])
    facts = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in "srp"}
    assert facts["s"]["drops"] == {"unfinished": 1, "over_rows": 0, "over_max_tokens": 1}
    assert facts["r"]["drops"] == {"over_max_tokens": 1, "validation": held} and 0 < held < 8
    assert facts["p"]["drops"] == {"over_max_tokens": 1} and facts["p"]["packed_rows"] == 11
    assert facts["s"]["packed_rows"] == facts["s"]["answers"] == 10
    for name, fact in facts.items():
        used = {"s": 10, "r": 11 - held, "p": 11}[name]
        assert fact["rows_in"] == 12 and fact["rows_out"] == used and fact["steps"] == 2 * math.ceil(used / 4)
        header, *lines = [line.split(",") for line in (tmp_path / f"{name}.csv").read_text().splitlines()]
        losses = [[int(line[0]), float(line[header.index("loss")])] for line in lines if line[header.index("loss")]]
        assert fact["curve"] == losses and len(losses) == fact["steps"]


@pytest.mark.slow
def test_every_training_goes_on_from_its_one_checkpoint_into_the_same_weights(
    tiny_model, history, runtime, tmp_path, monkeypatch, capsys
):
    params, runtime.checkpoint_minutes = settings(runtime, epochs=3), 0.0
    monkeypatch.setattr(checkpoints, "SHARE", math.inf)  # whatever they cost: after every step
    files = {"curve": tmp_path / "c.csv", "metrics": tmp_path / "c.json"}
    trainings = {
        "sft": lambda out: sft.main(params, tiny_model, history, policy=out, **files),
        "reward": lambda out: reward_model.main(params, tiny_model, history, 0, reward=out, **files),
    }
    for name, train in trainings.items():
        monkeypatch.setenv("STAGE_SCRATCH", str(tmp_path / "scratch" / name))
        for time in ("whole", "again"):
            train(tmp_path / f"{name}-{time}")
            kept = [folder.name for folder in (tmp_path / "scratch" / name).glob("checkpoint-*")]
            assert kept == ["checkpoint-5"]  # none is written at the last step, the sixth
        assert "going on after step 5" in capsys.readouterr().out
        ends = [(tmp_path / f"{name}-{time}/model.safetensors").read_bytes() for time in ("whole", "again")]
        assert ends[0] == ends[1]


@pytest.mark.slow
def test_a_reward_does_not_depend_on_batching_or_padding(tiny_model, history, runtime, tmp_path):
    files = {"curve": tmp_path / "c.csv", "metrics": tmp_path / "c.json"}
    reward_model.main(settings(runtime), tiny_model, history, 0, reward=tmp_path / "reward", **files)
    rows = sides(tmp_path / "reward", pairs(9))
    values = forward.rewards(tmp_path / "reward", "float32", runtime, alone=False)
    together = values(rows, ["x"] * len(rows), lambda done: None)
    alone = [values([row], ["x"], lambda done: None)[0] for row in rows]
    assert together == pytest.approx(alone, abs=1e-4)


def test_a_global_batch_that_cannot_be_split_is_refused(runtime):
    runtime.micro_batch_rows = 3
    params = settings(runtime)
    with pytest.raises(ValueError, match=r"global_batch_rows = 4 must be a multiple of .* = 3; change runtime"):
        harness.arguments(params.dpo, params, 8)
