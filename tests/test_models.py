"""Forward passes and trainers on a tiny random model, against formulas worked by hand and against TRL itself."""

import math
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages import chat
from stages.signals import forward
from stages.training import dpo, harness, reference, reward_model, sft, steps
from tests.conftest import distance, pairs


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120))
def test_batches_hold_every_row_once_and_keep_the_token_limit(lengths, limit):
    made = list(forward.batches(lengths, limit))
    assert sorted(i for batch in made for i in batch) == list(range(len(lengths)))
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= limit for b in made)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50)), max_size=40), st.integers(1, 120))
def test_a_groups_batches_are_the_same_whatever_other_groups_there_are(rows, limit):
    names, lengths = [name for name, _ in rows], [length for _, length in rows]
    made = list(forward.batches(lengths, limit, names))
    for name in set(names):
        own = [i for i in range(len(rows)) if names[i] == name]
        alone = [[own[k] for k in batch] for batch in forward.batches([lengths[i] for i in own], limit)]
        assert [batch for batch in made if names[batch[0]] == name] == alone


def sides(model, rows: list[dict]) -> list[forward.Row]:
    """The chosen side of every pair, then the rejected side of every pair."""
    answers = [reference.side(row, name) for name in ("chosen", "rejected") for row in rows]
    return forward.tokenized(chat.load_tokenizer(model), answers)


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
    "loss": ["sigmoid"], "loss_weights": [1.0], "beta": 0.1, "label_smoothing": 0.0, "f_divergence": "reverse_kl",
    "f_alpha": 0.5, "ld_alpha": None,
    "discopop_tau": 0.05, "simpo_gamma": 0.5, "lora_rank": 0, "lora_alpha": 16.0, "quantized": False, "half": False,
}  # fmt: skip


def settings(runtime, **changes):
    section = {
        "learning_rate": 1e-3,
        "epochs": 1,
        "global_batch_rows": 4,
        "warmup_share": 0.0,
        "max_tokens": 128,
    } | changes
    return SimpleNamespace(
        seed=1, dtype="float32", runtime=runtime,
        sft=SimpleNamespace(rows=None, **section), dpo=SimpleNamespace(**(section | LOSS | changes)),
        reward_model=SimpleNamespace(
            layers=None, margin=0.0, centring=0.0, validation_share=0.0, evaluations=0, **section
        ),
    )  # fmt: skip


def weights(folder) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def train_dpo(model, history, runtime, out, **changes):
    """The loss of each step; the model is its own reference."""
    params = settings(runtime, **changes)
    dpo.main(
        params,
        model,
        model,
        model,
        history,
        policy=out,
        curve=out.with_suffix(".csv"),
        metrics=out.with_suffix(".json"),
    )
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
    assert sorted(p.name for p in (tmp_path / "policy").iterdir()) == sorted(p.name for p in tiny_model.iterdir())


@pytest.mark.slow
def test_the_same_training_twice_gives_the_same_bytes(tiny_model, history, runtime, tmp_path):
    for name in ("one", "two"):
        train_dpo(tiny_model, history, runtime, tmp_path / name)
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()


@pytest.mark.slow
def test_micro_batches_are_layout_and_not_science(tiny_model, history, runtime, tmp_path):
    losses = {}
    for rows in (1, 8):  # one pair at a time, gathered over eight; or the eight at once
        runtime.micro_batch_rows = rows
        losses[rows] = train_dpo(tiny_model, history, runtime, tmp_path / str(rows), global_batch_rows=8, epochs=3)
    assert losses[1] == pytest.approx(losses[8], abs=1e-3) and len(losses[1]) == 3
    start, one, eight = weights(tiny_model), weights(tmp_path / "1"), weights(tmp_path / "8")
    assert distance(one, eight) < 0.02 * distance(eight, start)


@pytest.mark.slow
def test_the_rows_of_a_last_shorter_step_weigh_the_same_on_any_layout(tiny_model, history, runtime, tmp_path):
    """Seven pairs in steps of four: the second step's three are one micro-batch, or two and one, or one each."""
    pq.write_table(pq.read_table(history).slice(0, 7), history)
    losses, ends = {}, {}
    for rows in (4, 2, 1):
        runtime.micro_batch_rows = rows
        losses[rows] = train_dpo(tiny_model, history, runtime, tmp_path / str(rows), learning_rate=1e-4, epochs=2)
        ends[rows] = weights(tmp_path / str(rows))
    assert (
        len(losses[4]) == 4
        and losses[4] == pytest.approx(losses[2], abs=1e-5)
        and losses[4] == pytest.approx(losses[1], abs=1e-5)
    )
    start = weights(tiny_model)
    for rows in (2, 1):
        assert distance(ends[rows], ends[4]) < 0.02 * distance(ends[4], start)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [6, 8])
def test_the_order_of_rows_is_the_one_that_transformers_would_draw(tiny_model, history, runtime, tmp_path, rows):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    tokenizer, params = chat.load_tokenizer(tiny_model), settings(runtime, epochs=3)
    pq.write_table(table := pq.read_table(history).slice(0, rows), history)
    sft.main(params, tiny_model, history, policy=tmp_path / "ours", curve=tmp_path / "c.csv")
    tokens = [sft.tokenize(tokenizer, row) for row in table.to_pylist() if row["chosen_finished"]]
    args = SFTConfig(**harness.arguments(params.sft, params, len(tokens)))
    network = AutoModelForCausalLM.from_pretrained(tiny_model, **harness.model_options())
    trainer = SFTTrainer(network, args=args, train_dataset=Dataset.from_list(tokens), processing_class=tokenizer)
    trainer.train()
    harness.save(trainer, tokenizer, tmp_path / "its", "float32")
    ours, its = weights(tmp_path / "ours"), weights(tmp_path / "its")
    assert all(torch.equal(value, ours[name]) for name, value in its.items())


@pytest.mark.parametrize(("rows", "processes", "kept"), [(7, 1, 7), (7, 2, 4), (8, 2, 8), (9, 4, 8)])
def test_several_processes_leave_out_the_rows_that_they_cannot_share(runtime, rows, processes, kept):
    runtime.processes = processes
    assert steps.shared(rows, settings(runtime).dpo, runtime) == kept


def test_rows_that_do_not_fill_a_micro_batch_on_each_process_are_refused(runtime):
    runtime.processes = 4
    with pytest.raises(
        ValueError,
        match=r"7 rows do not fill one micro-batch on each of runtime.processes = 4; "
        r"lower it, or runtime.micro_batch_rows = 2",
    ):
        steps.shared(7, settings(runtime).dpo, runtime)


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
@pytest.mark.parametrize(("dtype", "share", "within"), [("float32", 1.0, 1e-4), ("bfloat16", 0.5, 1e-3)])
def test_the_references_log_probabilities_are_those_that_trl_computes_beforehand(
    tiny_model, history, runtime, tmp_path, dtype, share, within
):
    """In bfloat16 half of them, since padding moves the others; with bfloat16 weights none would be."""
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
        assert sum(each <= within for each in apart) >= share * len(known), apart


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["robust", "exo_pair"])
def test_label_smoothing_changes_the_loss_where_it_is_allowed(tiny_model, history, runtime, tmp_path, loss):
    plain = train_dpo(tiny_model, history, runtime, tmp_path / "plain", loss=[loss], label_smoothing=0.01)
    smooth = train_dpo(tiny_model, history, runtime, tmp_path / "smooth", loss=[loss], label_smoothing=0.3)
    assert plain[1:] != pytest.approx(smooth[1:], abs=1e-4)


@pytest.mark.slow
def test_sft_and_reward_model_move_every_weight(tiny_model, history, runtime, tmp_path):
    params = settings(runtime)
    sft.main(params, tiny_model, history, policy=tmp_path / "pi0", curve=tmp_path / "c.csv")
    start, end = weights(tiny_model), weights(tmp_path / "pi0")
    assert all(not torch.equal(start[k], end[k]) for k in start)
    reward_model.main(params, tiny_model, history, 0, reward=tmp_path / "reward", curve=tmp_path / "c.csv")
    trained = weights(tmp_path / "reward")
    assert "score.weight" in trained and not torch.equal(
        trained["model.embed_tokens.weight"], start["model.embed_tokens.weight"]
    )


@pytest.mark.slow
def test_every_training_goes_on_from_its_one_checkpoint_into_the_same_weights(
    tiny_model, history, runtime, tmp_path, monkeypatch, capsys
):
    params, runtime.checkpoint_steps = settings(runtime, epochs=3), 1
    trainings = {
        "sft": lambda out: sft.main(params, tiny_model, history, policy=out, curve=tmp_path / "c.csv"),
        "reward": lambda out: reward_model.main(params, tiny_model, history, 0, reward=out, curve=tmp_path / "c.csv"),
    }
    for name, train in trainings.items():
        monkeypatch.setenv("STAGE_SCRATCH", str(tmp_path / "scratch" / name))
        for time in ("whole", "again"):
            train(tmp_path / f"{name}-{time}")
            assert [p.name for p in (tmp_path / "scratch" / name).glob("checkpoint-*")] == [
                "checkpoint-5"
            ]  # none is written at the last step, the sixth
        assert "going on after step 5" in capsys.readouterr().out
        ends = [(tmp_path / f"{name}-{time}/model.safetensors").read_bytes() for time in ("whole", "again")]
        assert ends[0] == ends[1]


@pytest.mark.slow
def test_a_reward_does_not_depend_on_batching_or_padding(tiny_model, history, runtime, tmp_path):
    reward_model.main(settings(runtime), tiny_model, history, 0, reward=tmp_path / "reward", curve=tmp_path / "c.csv")
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
