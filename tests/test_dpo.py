"""Policy training: what it refuses, what it goes on from, adapters, and a run that was stopped."""

import json
import math
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from stages import chat
from stages.pairs import history as history_stage
from stages.pairs import offline
from stages.training import checkpoints, digest, dpo, lora, objectives, reference, watch
from tests.conftest import bring_tiny_model, pairs
from tests.test_models import settings, train_dpo, weights


def edited(path, **changes):
    """The history with its first row changed."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0] |= changes
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    return path


@pytest.fixture
def another(tmp_path):
    return bring_tiny_model(tmp_path / "another", number=2)


def train(params, model, reference_model, path, out):
    dpo.main(
        params,
        model,
        model,
        reference_model,
        path,
        policy=out,
        curve=out.with_suffix(".csv"),
        metrics=out.with_suffix(".json"),
    )


def test_another_reference_than_the_one_that_was_measured_is_refused_by_its_hash(
    tiny_model, another, history, runtime, tmp_path
):
    told = rf"pair 0: its log-probabilities are by a model with digest {digest.model(tiny_model)}, .*another has .*"
    with pytest.raises(ValueError, match=f"{told}run reference again"):
        train(settings(runtime), tiny_model, another, history, tmp_path / "out")


OTHER_TOKENS = "pair 0 of t0: its log-probabilities are of another prompt .*wrote other tokens; run reference again"


@pytest.mark.parametrize("changes", [{"prompt": [{"role": "user", "content": "another"}]}, {"chosen_finished": False}])
def test_log_probabilities_of_another_prompt_are_refused(tiny_model, history, runtime, tmp_path, changes):
    with pytest.raises(ValueError, match=OTHER_TOKENS):
        train(settings(runtime), tiny_model, tiny_model, edited(history, **changes), tmp_path / "out")


def test_log_probabilities_of_the_same_texts_in_other_tokens_are_refused(tiny_model, history, runtime, tmp_path):
    """The messages are the same to the letter; a template that writes a line more makes other tokens of them."""
    rows = pq.read_table(history).to_pylist()
    model = shutil.copytree(tiny_model, tmp_path / "model")
    template = model / "chat_template.jinja"
    template.write_text("Be brief.\n" + template.read_text(encoding="utf-8"), encoding="utf-8")
    theirs = [row | {"ref_model": digest.model(model)} for row in rows]
    pq.write_table(pa.Table.from_pylist(theirs, pq.read_schema(history)), tmp_path / "theirs.parquet")
    with pytest.raises(ValueError, match=OTHER_TOKENS):
        train(settings(runtime), model, model, tmp_path / "theirs.parquet", tmp_path / "out")


def test_a_checkpoint_of_another_vocabulary_is_refused(tiny_model, another, history, runtime, tmp_path):
    tokenizer = json.loads((another / "tokenizer.json").read_text())
    word = max(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    tokenizer["model"]["vocab"][f"{word}x"] = tokenizer["model"]["vocab"].pop(word)
    (another / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(
        ValueError, match=r"another has another vocabulary \(\d+ tokens against \d+\) than the reference"
    ):
        train(settings(runtime), another, tiny_model, history, tmp_path / "out")


def test_a_prompt_that_leaves_no_room_is_an_error_and_a_long_answer_a_counted_drop(tiny_model, history):
    tokenizer, rows = chat.load_tokenizer(tiny_model), pq.read_table(history).to_pylist()
    known = [dpo.tokenize(tokenizer, row) for row in rows]
    lengths = [objectives.length(pair) for pair in known]
    read = tiny_model, history, tiny_model, digest.model(tiny_model)
    prompt, limit = len(known[0]["prompt_ids"]), min(lengths)
    rule = f"pair 0: its prompt alone has {prompt} tokens, dpo.max_tokens = {prompt} leaves no room.*raise dpo.max_tok"
    with pytest.raises(ValueError, match=rule):
        dpo.fitting(*read, prompt)
    kept, long = dpo.fitting(*read, limit)
    short = [pair | {"length": limit} for pair, length in zip(known, lengths, strict=True) if length == limit]
    assert kept.to_list() == short and long == len(rows) - len(short) > 0
    pq.write_table(pq.read_table(history).take([lengths.index(max(lengths))]), history)
    with pytest.raises(ValueError, match=rf"no pair of 1 fits dpo\.max_tokens = {limit}; raise it"):
        dpo.fitting(*read, limit)


def test_the_account_names_the_pairs_left_out_and_tells_the_last_step():
    log = [{"loss": 0.7}, {"loss": 0.51236, "rewards/accuracies": 0.75, "rewards/margins": 1.25}]
    assert dpo.account(4, 1, "abc", log, [[1, 0.7], [2, 0.51236]]) == {
        "rows_in": 5,
        "rows_out": 4,
        "drops": {"over_max_tokens": 1},
        "steps": 2,
        "curve": [[1, 0.7], [2, 0.51236]],
        "reference": "abc",
        "loss": 0.5124,
        "accuracy": 0.75,
        "margin": 1.25,
    }


@pytest.mark.parametrize(
    ("logs", "told"),
    [
        ({"loss": math.nan}, "loss is nan"),
        ({"grad_norm": math.inf}, "grad_norm is inf"),
        ({"grad_norm": 2e4}, "grad_norm is 20000, 12 at the first step"),
    ],
)
def test_a_lost_number_stops_with_step_rows_and_remedy(logs, told):
    with pytest.raises(ValueError, match=rf"step 7: {told} on rows a, b; lower the learning rate"):
        watch.check_numbers(7, logs, 12.0, lambda step: ["a", "b"])
    watch.check_numbers(7, {"loss": 0.5, "grad_norm": 1e4}, 12.0, None)
    watch.check_numbers(1, {"loss": 25e4, "grad_norm": 2e5}, 2e5, None)  # as SPPO's at a beta of 0.001, from the start


@pytest.mark.slow
def test_a_policy_with_a_broken_weight_stops_at_the_first_step(tiny_model, another, history, runtime, tmp_path):
    from safetensors.torch import load_file, save_file

    state = load_file(another / "model.safetensors")
    state["model.norm.weight"][0] = math.nan
    save_file(state, another / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"step 1: (loss|grad_norm) is nan on rows \d, \d, \d, \d; lower"):
        train(settings(runtime), another, tiny_model, history, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_policy_is_kept_after_half_of_its_steps_too_and_ends_as_it_would_without(
    tiny_model, history, runtime, tmp_path
):
    for half in (True, False):
        train_dpo(tiny_model, history, runtime, tmp_path / str(half), half=half, epochs=3)
    start, middle, end, alone = (
        weights(folder) for folder in (tiny_model, tmp_path / "True/half", tmp_path / "True", tmp_path / "False")
    )
    assert all(torch.equal(end[k], alone[k]) for k in alone) and not (tmp_path / "False/half").exists()
    way = lambda a, b: sum((a[k] - b[k]).norm() ** 2 for k in a) ** 0.5  # noqa: E731
    assert 0 < way(start, middle) < way(start, end) and way(middle, end) > 0
    assert {p.name for p in (tmp_path / "True/half").iterdir()} == {p.name for p in tiny_model.iterdir()} - {
        "text_contract.json"
    }


@pytest.mark.slow
@pytest.mark.parametrize("quantized", [False, True])
def test_an_adapter_is_kept_and_merged_into_the_policy(tiny_model, history, runtime, tmp_path, quantized):
    before = {p.name: p.read_bytes() for p in tiny_model.iterdir()}
    reference.main(
        settings(runtime, quantized=quantized), tiny_model, history.with_name("pairs.parquet"), reference=history
    )
    losses = train_dpo(tiny_model, history, runtime, tmp_path / "policy", lora_rank=4, quantized=quantized, epochs=3)
    near = (
        2e-3 if quantized else 1e-4
    )  # a processor with bfloat16 instructions packs the 4 bits anew where no gradient is wanted
    assert losses[0] == pytest.approx(math.log(2), abs=near) and losses[-1] < losses[0]
    assert {p.name: p.read_bytes() for p in tiny_model.iterdir()} == before
    files = sorted(p.name for p in (tmp_path / "policy/adapter").iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors"]
    start, end = weights(tiny_model), weights(tmp_path / "policy")
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    assert start.keys() == end.keys() and moved == {name for name in start if "_proj" in name}
    lora.merge(tiny_model, tmp_path / "policy/adapter", tmp_path / "again", "float32")
    assert all(torch.equal(value, end[name]) for name, value in weights(tmp_path / "again").items())


def test_a_reference_of_whole_weights_is_refused_where_the_policy_has_4_bits(tiny_model, history, runtime, tmp_path):
    told = r"pair 0: its log-probabilities are by a model with digest \w{32}, \S+tiny has \w{32}-nf4"
    with pytest.raises(ValueError, match=f"{told}; run reference again"):
        train(settings(runtime, lora_rank=4, quantized=True), tiny_model, tiny_model, history, tmp_path / "out")


@pytest.mark.slow
def test_an_adapter_of_another_base_is_refused(tiny_model, another, history, runtime, tmp_path):
    train_dpo(tiny_model, history, runtime, tmp_path / "policy", lora_rank=4)
    told = rf"adapter was trained on \S*tiny with digest {digest.model(tiny_model)}, \S*another has .*"
    with pytest.raises(ValueError, match=f"{told}merge it into the model it belongs"):
        lora.merge(another, tmp_path / "policy/adapter", tmp_path / "merged", "float32")


def test_no_new_pairs_leave_the_policy_as_it_is(tiny_model, history, runtime, tmp_path):
    pq.write_table(pq.read_table(history).slice(0, 0), history)
    train(settings(runtime), tiny_model, tiny_model, history, tmp_path / "policy")
    assert {p.name: p.read_bytes() for p in (tmp_path / "policy").iterdir()} == {
        p.name: p.read_bytes() for p in tiny_model.iterdir()
    }
    assert json.loads((tmp_path / "policy.json").read_text())["rows_in"] == 0


def test_a_stopped_run_keeps_the_policy_that_broke_the_rule_even_where_training_would_start_from_pi0(
    tiny_model, another, history, runtime, tmp_path
):
    pq.write_table(pq.read_table(history).slice(0, 0), history)
    dpo.main(
        settings(runtime),
        tiny_model,
        another,
        tiny_model,
        history,
        policy=tmp_path / "p",
        curve=tmp_path / "c",
        metrics=tmp_path / "m",
    )
    assert {p.name: p.read_bytes() for p in (tmp_path / "p").iterdir()} == {
        p.name: p.read_bytes() for p in another.iterdir()
    }


def test_no_new_pairs_leave_half_trained_policies_of_one_level(tiny_model, history, runtime, tmp_path):
    pq.write_table(pq.read_table(history).slice(0, 0), history)
    train(settings(runtime, half=True), tiny_model, tiny_model, history, tmp_path / "next")
    train(settings(runtime, half=True), tmp_path / "next", tiny_model, history, tmp_path / "last")
    assert sorted(p.name for p in (tmp_path / "last").iterdir()) == sorted(
        [*(p.name for p in tiny_model.iterdir()), "half"]
    )
    assert {p.name: p.read_bytes() for p in (tmp_path / "last/half").iterdir()} == {
        p.name: p.read_bytes() for p in tiny_model.iterdir()
    }


def test_a_stopped_iteration_trains_on_no_earlier_pairs_either():
    before = [{"id": "a", "made_in": "t0"}]
    assert history_stage.admitted(before, [], "all", True) == []


def test_a_pair_that_stands_in_the_history_already_is_refused():
    row = {"id": "a", "made_in": "t0"}
    with pytest.raises(ValueError, match="1 new pairs stand in the history already, a of t0 first"):
        history_stage.admitted([row], [row], "all", False)


def test_pairs_carry_their_reference_and_no_pairs_need_no_model(tiny_model, runtime, tmp_path):
    for rows, name in ((pairs(3), "three"), ([], "none")):
        pq.write_table(pa.Table.from_pylist(rows, offline.SCHEMA), tmp_path / f"{name}.parquet")
        reference.main(settings(runtime), tiny_model, tmp_path / f"{name}.parquet", reference=tmp_path / f"{name}.out")
        made, tokenizer = pq.read_table(tmp_path / f"{name}.out").to_pylist(), chat.load_tokenizer(tiny_model)
        assert [row["id"] for row in made] == [row["id"] for row in rows]
        assert all(
            row["ref_model"] == digest.model(tiny_model)
            and row["ref_tokens"] == digest.tokens(chat.pair_ids(tokenizer, row))
            for row in made
        )


def test_a_half_written_checkpoint_is_not_gone_on_from(tmp_path):
    checkpoint = tmp_path / "checkpoint-3"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"1234")
    assert not checkpoints.whole(checkpoint)
    (checkpoint / "complete.json").write_text('{"model.safetensors": 4}')
    assert checkpoints.whole(checkpoint) and checkpoints.steps_done(checkpoint) == 3
    (checkpoint / "model.safetensors").write_bytes(b"123")
    assert not checkpoints.whole(checkpoint)
