"""The preference losses: TRL's trainers on a tiny model against formulas worked by hand from log-probabilities."""

import math
import re
from statistics import fmean
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import chat
from stages.signals import forward
from stages.training import base, dpo, objectives, steps
from tests.test_models import LOSS, settings, train_dpo


def pair(name: str, prompt: int = 1, chosen: int = 1, rejected: int = 1) -> objectives.Pair:
    return {
        "id": name,
        "prompt_ids": [1] * prompt,
        "chosen_ids": [2] * chosen,
        "rejected_ids": [3] * rejected,
        "name": name,
    }


@given(st.lists(st.integers(1, 99), min_size=1, max_size=50), st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_holds_every_pair_once_and_the_sort_moves_none_to_another_step(lengths, batch, epoch):
    drawn = steps.order([0] * len(lengths), len(lengths), batch, 1, epoch)
    ordered = steps.order(lengths, len(lengths), batch, 1, epoch)
    assert sorted(ordered) == list(range(len(lengths)))
    for k in range(0, len(lengths), batch):
        step = ordered[k : k + batch]
        assert sorted(step) == sorted(drawn[k : k + batch]) and [lengths[i] for i in step] == sorted(
            (lengths[i] for i in step), reverse=True
        )


@given(st.integers(1, 60), st.integers(1, 3), st.integers(1, 4), st.integers(2, 4), st.integers(0, 3))
def test_processes_leave_out_the_end_of_the_shuffle_and_share_the_steps_that_are_whole(
    rows, micro, gathered, processes, epoch
):
    kept, batch = steps.even(rows, micro, processes), micro * gathered * processes
    alone, together = steps.order([0] * rows, rows, batch, 1, epoch), steps.order([0] * rows, kept, batch, 1, epoch)
    assert together == alone[:kept] and rows - kept < micro * processes and kept % (micro * processes) == 0


def test_the_rows_of_a_step_are_named_over_epochs():
    pairs = [pair(str(i)) for i in range(5)]
    ids = objectives.rows_of(SimpleNamespace(loss=["sigmoid"], global_batch_rows=2), pairs, 5, 1)
    assert [len(ids(step)) for step in range(1, 7)] == [2, 2, 1, 2, 2, 1]
    assert (
        sorted(i for step in (1, 2, 3) for i in ids(step))
        == sorted(i for step in (4, 5, 6) for i in ids(step))
        == list("01234")
    )
    assert [ids(step) for step in (1, 2, 3)] != [ids(step) for step in (4, 5, 6)]
    ktos = objectives.rows_of(SimpleNamespace(loss=["kto"], global_batch_rows=2), pairs, 5, 1)
    assert [ktos(step) for step in (1, 2, 3)] == [ktos(step) for step in (4, 5, 6)] == [ids(step) for step in (1, 2, 3)]


@given(st.integers(2, 20), st.integers(2, 6))
def test_kto_sees_both_sides_once_and_measures_its_baseline_on_other_prompts(number, batch):
    pairs = [pair(str(i)) | {"prompt_ids": [i], "chosen_ids": [i, 0], "rejected_ids": [i, 1]} for i in range(number)]
    rows = objectives.unpaired(pairs, number, batch, 1)
    assert sorted(row["completion_ids"] for row in rows) == sorted(
        ids for p in pairs for ids in (p["chosen_ids"], p["rejected_ids"])
    )
    full = rows[: 2 * batch * (number // batch)]  # a last batch of one pair has no other prompt
    assert all(row["KL_completion_ids"][0] != row["prompt_ids"][0] for row in full)
    for k in range(0, len(rows), 2 * batch):
        part = rows[k : k + 2 * batch]
        assert sorted(row["KL_completion_ids"] for row in part) == sorted(row["completion_ids"] for row in part)


@pytest.mark.parametrize(
    ("loss", "processes", "micro", "refused"),
    [("kto", 1, 2, True), ("kto", 2, 2, False), ("aot", 2, 2, True), ("aot", 1, 4, False)],
)
def test_a_loss_that_compares_rows_of_a_micro_batch_is_refused_where_the_layout_would_change_it(
    runtime, loss, processes, micro, refused
):
    runtime.processes, runtime.micro_batch_rows = processes, micro
    section = SimpleNamespace(loss=[loss], global_batch_rows=4)
    if refused:
        with pytest.raises(
            ValueError,
            match=rf"dpo.loss {loss} compares the rows of one micro-batch: set runtime.* = dpo.global_batch_rows = 4",
        ):
            objectives.check_layout(section, runtime)
    else:
        objectives.check_layout(section, runtime)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A policy that is not its reference: the tiny model drawn with another seed."""
    folder = tmp_path_factory.mktemp("other") / "tiny"
    base.main(
        SimpleNamespace(base=SimpleNamespace(model="tiny-random", revision=None), dtype="float32", seed=2), model=folder
    )
    return folder


def first_loss(policy, reference, history, runtime, out, **changes) -> float:
    """The loss of the first step, at a rate so small that nothing moves."""
    params = settings(runtime, learning_rate=1e-12, **changes)
    dpo.main(
        params,
        policy,
        policy,
        reference,
        history,
        policy=out,
        curve=out.with_suffix(".csv"),
        metrics=out.with_suffix(".m"),
    )
    lines = [line.split(",") for line in out.with_suffix(".csv").read_text().splitlines()]
    return float(lines[1][lines[0].index("loss")])


def first_batch(policy, history, runtime) -> list[dict[str, float]]:
    """Of the pairs of the first step: log pi and log pi_0 of both sides, and their tokens."""
    rows = pq.read_table(history).to_pylist()
    tokens = forward.sides(policy, rows)
    logs = forward.logprobs(policy, tokens, "float32", runtime)
    lengths = [len(completion) for _, completion in tokens]
    n = len(rows)
    names = steps.order([max(len(tokens[i][1]), len(tokens[i + len(rows)][1])) for i in range(len(rows))], n, 4, 1, 0)[
        :4
    ]
    known = [
        {
            "w": logs[i],
            "l": logs[i + n],
            "nw": lengths[i],
            "nl": lengths[i + n],
            "rw": rows[i]["ref_chosen_logps"],
            "rl": rows[i]["ref_rejected_logps"],
        }
        for i in names
    ]
    return [row | {"d": row["w"] - row["rw"] - row["l"] + row["rl"]} for row in known]


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def log_odds(logp: float) -> float:
    return logp - math.log1p(-math.exp(logp))


FORMULAS = {
    "sigmoid": ({}, lambda r: -log_sigmoid(0.1 * r["d"])),
    "hinge": ({}, lambda r: max(0.0, 1 - 0.1 * r["d"])),
    "ipo": ({}, lambda r: ((r["w"] - r["rw"]) / r["nw"] - (r["l"] - r["rl"]) / r["nl"] - 1 / (2 * 0.1)) ** 2),
    "robust": (
        {"label_smoothing": 0.1},
        lambda r: (-0.9 * log_sigmoid(0.1 * r["d"]) + 0.1 * log_sigmoid(-0.1 * r["d"])) / 0.8,
    ),
    "sppo_hard": ({}, lambda r: (r["w"] - r["rw"] - 5) ** 2 + (r["l"] - r["rl"] + 5) ** 2),
    "simpo": ({}, lambda r: -log_sigmoid(0.1 * (r["w"] / r["nw"] - r["l"] / r["nl"]) - 0.5)),
    "cpo": ({}, lambda r: -log_sigmoid(0.1 * (r["w"] - r["l"]))),
}


@pytest.mark.slow
@pytest.mark.parametrize("loss", FORMULAS)
def test_the_trainers_loss_is_the_formulas(loss, tiny_model, other, history, runtime, tmp_path):
    runtime.micro_batch_rows = 4
    changes, formula = FORMULAS[loss]
    batch = first_batch(other, history, runtime)
    expected = fmean(map(formula, batch))
    if loss == "cpo":  # and its NLL term, a mean over the batch's chosen tokens
        expected -= sum(r["w"] for r in batch) / sum(r["nw"] for r in batch)
    assert any(abs(r["d"]) > 1 for r in batch)  # the policy is not the reference
    assert first_loss(other, tiny_model, history, runtime, tmp_path / "p", loss=[loss], **changes) == pytest.approx(
        expected, abs=1e-3
    )


@pytest.mark.slow
def test_the_optimistic_term_adds_the_chosen_sides_nll_per_token(tiny_model, other, history, runtime, tmp_path):
    runtime.micro_batch_rows = 4
    batch = first_batch(other, history, runtime)
    nll = -sum(r["w"] for r in batch) / sum(r["nw"] for r in batch)
    plain = first_loss(other, tiny_model, history, runtime, tmp_path / "plain")
    found = first_loss(
        other, tiny_model, history, runtime, tmp_path / "p", loss=["sigmoid", "sft"], loss_weights=[1.0, 0.2]
    )
    assert found - plain == pytest.approx(0.2 * nll, abs=1e-3)


@pytest.mark.slow
def test_the_loss_falls_with_beta_where_the_policy_ranks_rightly_and_rises_where_it_does_not(
    tiny_model, other, history, runtime, tmp_path
):
    """d loss / d beta = -mean(d * sigmoid(-beta d)), by central difference."""
    runtime.micro_batch_rows = 4
    slope = -fmean(r["d"] / (1 + math.exp(0.1 * r["d"])) for r in first_batch(other, history, runtime))
    low, high = (first_loss(other, tiny_model, history, runtime, tmp_path / str(b), beta=b) for b in (0.09, 0.11))
    assert (high - low) / 0.02 == pytest.approx(slope, rel=0.05) and abs(slope) > 0.1


@pytest.mark.slow
def test_kto_begins_at_a_half_where_the_policy_is_its_reference(tiny_model, history, runtime, tmp_path):
    runtime.micro_batch_rows = 4
    assert train_dpo(tiny_model, history, runtime, tmp_path / "p", loss=["kto"])[0] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.slow
def test_kto_holds_each_side_against_the_kl_of_mismatched_pairs(tiny_model, other, history, runtime, tmp_path):
    """1 - sigmoid(beta (ratio - kl)) of a chosen side, 1 - sigmoid(beta (kl - ratio)) of a rejected one; kl of answers
    to other prompts, at least 0.
    """
    runtime.micro_batch_rows = 4
    tokenizer = chat.load_tokenizer(tiny_model)
    rows = objectives.unpaired([dpo.tokenize(tokenizer, row) for row in pq.read_table(history).to_pylist()], 8, 4, 1)[
        :8
    ]

    def ratios(name: str) -> list[float]:
        texts = [(row["prompt_ids"], row[name]) for row in rows]
        mine, its = (forward.logprobs(model, texts, "float32", runtime) for model in (other, tiny_model))
        return [a - b for a, b in zip(mine, its, strict=True)]

    kl = max(0.0, fmean(ratios("KL_completion_ids")))
    signed = [
        ratio - kl if row["label"] else kl - ratio for row, ratio in zip(rows, ratios("completion_ids"), strict=True)
    ]
    for beta in (0.1, 0.3):
        expected = fmean(1 - math.exp(log_sigmoid(beta * each)) for each in signed)
        found = first_loss(other, tiny_model, history, runtime, tmp_path / str(beta), loss=["kto"], beta=beta)
        assert found == pytest.approx(expected, abs=1e-4) and abs(expected - 0.5) > 5e-3


@pytest.mark.slow
def test_orpo_is_the_nll_of_prompt_and_answer_and_the_log_odds_ratio(tiny_model, other, history, runtime, tmp_path):
    """Its log-probabilities are means over the answer's tokens, its NLL one over all tokens but the first of the
    batch's chosen sides.
    """
    runtime.micro_batch_rows = 4
    batch, rows = first_batch(other, history, runtime), forward.sides(other, pq.read_table(history).to_pylist())
    names = steps.order([max(len(rows[i][1]), len(rows[i + 8][1])) for i in range(8)], 8, 4, 1, 0)[:4]
    whole = [(rows[i][0][:1], rows[i][0][1:] + rows[i][1]) for i in names]
    nll = -sum(forward.logprobs(other, whole, "float32", runtime)) / sum(len(tokens) for _, tokens in whole)
    ratio = fmean(log_sigmoid(log_odds(r["w"] / r["nw"]) - log_odds(r["l"] / r["nl"])) for r in batch)
    assert first_loss(other, tiny_model, history, runtime, tmp_path / "p", loss=["orpo"]) == pytest.approx(
        nll - 0.1 * ratio, abs=1e-3
    )


@pytest.mark.slow
def test_aot_compares_the_sorted_log_ratios_of_policy_and_reference(tiny_model, other, history, runtime, tmp_path):
    runtime.micro_batch_rows = 4
    table = pq.read_table(history)
    rows = table.to_pylist()
    turned = [
        row | {"ref_chosen_logps": other_row["ref_chosen_logps"]}
        for row, other_row in zip(rows, reversed(rows), strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(turned, table.schema), history)  # or both sort alike, and nothing would be seen
    batch = first_batch(other, history, runtime)
    sorted_ratios = zip(sorted(r["w"] - r["l"] for r in batch), sorted(r["rw"] - r["rl"] for r in batch), strict=True)
    expected = fmean(-log_sigmoid(0.1 * (mine - its)) for mine, its in sorted_ratios)
    found = first_loss(other, tiny_model, history, runtime, tmp_path / "p", loss=["aot"])
    assert (
        found == pytest.approx(expected, abs=1e-3)
        and abs(found - fmean(-log_sigmoid(0.1 * r["d"]) for r in batch)) > 1e-3
    )


OTHERS = [
    {"loss": ["sigmoid_norm"]}, {"loss": ["exo_pair"], "label_smoothing": 1e-3}, {"loss": ["nca_pair"]}, {"loss": ["bco_pair"]},
    {"loss": ["aot_unpaired"]}, {"loss": ["apo_zero"]}, {"loss": ["apo_down"]}, {"loss": ["discopop"]}, {"f_divergence": "forward_kl"},
    {"f_divergence": "js_divergence"}, {"f_divergence": "alpha_divergence", "f_alpha": 0.3}, {"ld_alpha": 0.5},
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("changes", OTHERS, ids=str)
def test_every_other_loss_is_one_of_its_own(changes, tiny_model, other, history, runtime, tmp_path):
    """Each option reaches the trainer: none gives the loss of plain DPO."""
    runtime.micro_batch_rows = 4
    found = first_loss(other, tiny_model, history, runtime, tmp_path / "p", **changes)
    plain = first_loss(other, tiny_model, history, runtime, tmp_path / "plain")
    assert math.isfinite(found) and abs(found - plain) > 1e-4


def test_the_losses_that_params_know_are_the_losses_that_trl_knows():
    from inspect import getsource
    from typing import get_args

    from trl import DPOTrainer

    from stages.guard.params import ALONE, Dpo

    known = set(get_args(get_args(Dpo.model_fields["loss"].annotation)[0]))
    trls = set(re.findall(r'loss_type == "(\w+)"', getsource(DPOTrainer._compute_loss)))
    assert trls == known - ALONE and set(LOSS["loss"]) <= known
