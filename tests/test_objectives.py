"""The preference losses: TRL's trainers on a tiny model against formulas worked by hand from log-probabilities."""

import math
import re
from collections.abc import Callable
from statistics import fmean
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from stages import chat
from stages.training import dpo, losses, objectives, steps
from tests.conftest import bring_tiny_model, log_probabilities, sides
from tests.test_models import LOSS, settings, train_dpo


def pair(name: str, prompt: int = 1, chosen: int = 1, rejected: int = 1) -> objectives.Pair:
    return {
        "id": name,
        "prompt_ids": [1] * prompt,
        "chosen_ids": [2] * chosen,
        "rejected_ids": [3] * rejected,
        "length": prompt + max(chosen, rejected),
    }


def test_the_rows_of_a_step_are_named_over_epochs():
    pairs = Dataset.from_list([pair(str(i)) for i in range(5)])
    ids = objectives.rows_of(SimpleNamespace(loss=["sigmoid"], global_batch_rows=2), pairs, 1)
    assert [len(ids(step)) for step in range(1, 7)] == [2, 2, 1, 2, 2, 1]
    for epoch in ((1, 2, 3), (4, 5, 6)):
        assert sorted(i for step in epoch for i in ids(step)) == list("01234")
    assert [ids(step) for step in (1, 2, 3)] != [ids(step) for step in (4, 5, 6)]
    ktos = objectives.rows_of(SimpleNamespace(loss=["kto"], global_batch_rows=2), pairs, 1)
    assert [ktos(step) for step in (1, 2, 3)] == [ktos(step) for step in (4, 5, 6)] == [ids(step) for step in (1, 2, 3)]


@given(st.integers(2, 20), st.integers(2, 6))
def test_kto_sees_both_sides_once_and_measures_its_baseline_on_other_prompts(number, batch):
    pairs = [pair(str(i)) | {"prompt_ids": [i], "chosen_ids": [i, 0], "rejected_ids": [i, 1]} for i in range(number)]
    rows = objectives.unpaired(pairs, batch, 1)
    assert sorted(row["completion_ids"] for row in rows) == sorted(
        ids for p in pairs for ids in (p["chosen_ids"], p["rejected_ids"])
    )
    full = rows[: 2 * batch * (number // batch)]  # a last batch of one pair has no other prompt
    assert all(row["KL_completion_ids"][0] != row["prompt_ids"][0] for row in full)
    for k in range(0, len(rows), 2 * batch):
        part = rows[k : k + 2 * batch]
        assert sorted(row["KL_completion_ids"] for row in part) == sorted(row["completion_ids"] for row in part)


ONE, ANY = "processes = 1 and runtime.micro_batch_rows", "processes x runtime.micro_batch_rows"


@pytest.mark.parametrize(
    ("loss", "processes", "micro", "pairs", "remedy"),
    [
        ("kto", 1, 2, 8, ANY),
        ("kto", 2, 2, 8, ""),
        ("kto", 1, 4, 7, ""),
        ("kto", 2, 2, 7, "processes = 1, since 7 pairs do not fill its last step, and runtime.micro_batch_rows"),
        ("aot", 2, 2, 8, ONE),
        ("aot", 1, 4, 8, ""),
        ("sigmoid", 2, 1, 7, ""),
    ],
)
def test_a_loss_that_compares_rows_of_a_micro_batch_is_refused_where_the_layout_would_change_it(
    runtime, loss, processes, micro, pairs, remedy
):
    runtime.processes, runtime.micro_batch_rows = processes, micro
    section = SimpleNamespace(loss=[loss], global_batch_rows=4)
    if not remedy:
        return objectives.check_layout(section, runtime, pairs)
    told = f"dpo.loss {loss} compares the rows of one micro-batch: set runtime.{remedy} = dpo.global_batch_rows = 4"
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        objectives.check_layout(section, runtime, pairs)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A policy that is not its reference: the tiny model drawn with another seed."""
    return bring_tiny_model(tmp_path_factory.mktemp("other") / "tiny", number=2)


def first_loss(policy, reference, history, runtime, out, **changes) -> float:
    """The loss of the first step, at a rate so small that nothing moves."""
    params = settings(runtime, learning_rate=1e-12, **changes)
    files = {"policy": out, "curve": out.with_suffix(".csv"), "metrics": out.with_suffix(".m")}
    dpo.main(params, policy, policy, reference, history, **files)
    lines = [line.split(",") for line in out.with_suffix(".csv").read_text().splitlines()]
    return float(lines[1][lines[0].index("loss")])


def first_step(policy, history) -> list[int]:
    """The numbers of the first step's four pairs."""
    rows = pq.read_table(history).to_pylist()
    tokens = sides(policy, rows)
    answers = [(len(tokens[i][1]), len(tokens[i + len(rows)][1])) for i in range(len(rows))]
    return steps.order([max(each) for each in answers], 4, 1, 0)[:4]


def first_batch(policy, history, runtime) -> list[dict[str, float]]:
    """Of the pairs of the first step: w and l, log pi of the chosen and rejected side; rw and rl, log pi_0; nw and nl,
    their tokens; c and x, the log-ratios; d, the difference of these.
    """
    rows = pq.read_table(history).to_pylist()
    tokens, n = sides(policy, rows), len(rows)
    logs, lengths = log_probabilities(policy, tokens, "float32", runtime), [len(answer) for _, answer in tokens]
    batch = []
    for i in first_step(policy, history):
        row = {"w": logs[i], "l": logs[i + n], "nw": lengths[i], "nl": lengths[i + n]}
        row |= {"rw": rows[i]["ref_chosen_logps"], "rl": rows[i]["ref_rejected_logps"]}
        row |= {"c": row["w"] - row["rw"], "x": row["l"] - row["rl"]}
        batch.append(row | {"d": row["c"] - row["x"]})
    return batch


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def log_odds(logp: float) -> float:
    return logp - math.log1p(-math.exp(logp))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def exo(d: float, smoothing: float = 1e-3) -> float:
    """KL of the model's choice between two answers from the label's, which is wrong in a share of `smoothing`."""
    p = sigmoid(0.1 * d)
    return p * math.log(p / (1 - smoothing)) + (1 - p) * math.log((1 - p) / smoothing)


def discopop(d: float, tau: float = 0.05) -> float:
    """Between the logistic and the exponential loss, by how far the pair is ranked rightly."""
    share = sigmoid(0.1 * d / tau)
    return -(1 - share) * log_sigmoid(0.1 * d) + share * math.exp(-0.1 * d)


def contrast(score: Callable[[float], float]) -> Callable[[dict[str, float]], float]:
    """DPO's loss with another derivative of the divergence than the logarithm."""
    return lambda r: -log_sigmoid(0.1 * (score(r["c"]) - score(r["x"])))


SWAPPED = {"w": "l", "l": "w", "c": "x", "x": "c", "nw": "nl", "nl": "nw"}
FORMULAS = {  # name: what is set beside the loss, the loss of a pair; beta is 0.1
    "sigmoid": ({}, lambda r: -log_sigmoid(0.1 * r["d"])),
    "sigmoid_norm": ({}, lambda r: -log_sigmoid(0.1 * (r["c"] / r["nw"] - r["x"] / r["nl"]))),
    "hinge": ({}, lambda r: max(0.0, 1 - 0.1 * r["d"])),
    "ipo": ({}, lambda r: (r["c"] / r["nw"] - r["x"] / r["nl"] - 1 / (2 * 0.1)) ** 2),
    "robust": (
        {"label_smoothing": 0.1},
        lambda r: (-0.9 * log_sigmoid(0.1 * r["d"]) + 0.1 * log_sigmoid(-0.1 * r["d"])) / 0.8,
    ),
    "exo_pair": ({"label_smoothing": 1e-3}, lambda r: exo(r["d"])),
    "nca_pair": (
        {},
        lambda r: -log_sigmoid(0.1 * r["c"]) - 0.5 * log_sigmoid(-0.1 * r["c"]) - 0.5 * log_sigmoid(-0.1 * r["x"]),
    ),
    "bco_pair": ({}, lambda r: -log_sigmoid(0.1 * r["c"]) - log_sigmoid(-0.1 * r["x"])),
    "sppo_hard": ({}, lambda r: (r["c"] - 5) ** 2 + (r["x"] + 5) ** 2),
    "apo_zero": ({}, lambda r: 1 - sigmoid(0.1 * r["c"]) + sigmoid(0.1 * r["x"])),
    "apo_down": ({}, lambda r: sigmoid(0.1 * r["c"]) + 1 - sigmoid(0.1 * r["d"])),
    "discopop": ({}, lambda r: discopop(r["d"])),
    "simpo": ({}, lambda r: -log_sigmoid(0.1 * (r["w"] / r["nw"] - r["l"] / r["nl"]) - 0.5)),
    "cpo": ({}, lambda r: -log_sigmoid(0.1 * (r["w"] - r["l"]))),
    "forward_kl": ({"loss": ["sigmoid"], "f_divergence": "forward_kl"}, contrast(lambda s: 1 - math.exp(-s))),
    "js_divergence": (
        {"loss": ["sigmoid"], "f_divergence": "js_divergence"},
        contrast(lambda s: math.log(2) + log_sigmoid(s)),
    ),
    "alpha_divergence": (
        {"loss": ["sigmoid"], "f_divergence": "alpha_divergence", "f_alpha": 0.3},
        contrast(lambda s: (math.exp(-0.7 * s) - 1) / -0.7),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("loss", FORMULAS)
def test_the_trainers_loss_is_the_formulas(loss, tiny_model, other, history, runtime, tmp_path):
    """To a thousandth, and ten times as near as to what the formula says of the sides the other way round."""
    runtime.micro_batch_rows = 4
    changes, formula = FORMULAS[loss]
    batch = first_batch(other, history, runtime)
    turned = [row | {a: row[b] for a, b in SWAPPED.items()} | {"d": -row["d"]} for row in batch]
    expected, wrong = fmean(map(formula, batch)), fmean(map(formula, turned))
    if loss == "cpo":  # and its NLL term, a mean over the batch's chosen tokens
        expected -= sum(row["w"] for row in batch) / sum(row["nw"] for row in batch)
        wrong -= sum(row["w"] for row in turned) / sum(row["nw"] for row in turned)
    found = first_loss(other, tiny_model, history, runtime, tmp_path / "p", **({"loss": [loss]} | changes))
    assert abs(expected - wrong) > 1e-4
    assert abs(found - expected) < 1e-3 * max(1, abs(expected)) and abs(found - expected) < 0.1 * abs(found - wrong)


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
    rows = objectives.unpaired([dpo.tokenize(tokenizer, row) for row in pq.read_table(history).to_pylist()], 4, 1)[:8]

    def ratios(name: str) -> list[float]:
        texts = [(row["prompt_ids"], row[name]) for row in rows]
        mine, its = (log_probabilities(model, texts, "float32", runtime) for model in (other, tiny_model))
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
    batch, rows = first_batch(other, history, runtime), sides(other, pq.read_table(history).to_pylist())
    names = first_step(other, history)
    whole = [(rows[i][0][:1], rows[i][0][1:] + rows[i][1]) for i in names]
    nll = -sum(log_probabilities(other, whole, "float32", runtime)) / sum(len(tokens) for _, tokens in whole)
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


@pytest.mark.slow
def test_aot_unpaired_compares_the_sorted_log_ratios_of_both_sides(tiny_model, other, history, runtime, tmp_path):
    runtime.micro_batch_rows = 4
    batch = first_batch(other, history, runtime)
    sorted_ratios = zip(sorted(r["c"] for r in batch), sorted(r["x"] for r in batch), strict=True)
    expected = fmean(-log_sigmoid(0.1 * (chosen - rejected)) for chosen, rejected in sorted_ratios)
    found = first_loss(other, tiny_model, history, runtime, tmp_path / "p", loss=["aot_unpaired"])
    assert found == pytest.approx(expected, abs=1e-3)
    assert abs(found - fmean(-log_sigmoid(0.1 * r["d"]) for r in batch)) > 1e-3


@pytest.mark.slow
def test_ld_alpha_weighs_the_tokens_of_the_longer_side_that_the_shorter_one_has_not(
    tiny_model, other, history, runtime, tmp_path
):
    """Of both models; halfway between the log-probability of the common length and that of the whole answer."""
    runtime.micro_batch_rows = 4
    rows = sides(other, pq.read_table(history).to_pylist())
    numbers, n = first_step(other, history), len(rows) // 2

    def weighed(model) -> list[float]:
        shared = {i: min(len(rows[i][1]), len(rows[i + n][1])) for i in numbers}
        places = [(i, k) for k in (0, n) for i in numbers]
        cut = [(rows[i + k][0], rows[i + k][1][: shared[i]]) for i, k in places]
        parts = log_probabilities(model, cut, "float32", runtime)
        wholes = log_probabilities(model, [rows[i + k] for i, k in places], "float32", runtime)
        return [part + 0.5 * (whole - part) for part, whole in zip(parts, wholes, strict=True)]

    ratios = [mine - its for mine, its in zip(weighed(other), weighed(tiny_model), strict=True)]
    expected = fmean(-log_sigmoid(0.1 * (c - x)) for c, x in zip(ratios[:4], ratios[4:], strict=True))
    found = first_loss(other, tiny_model, history, runtime, tmp_path / "p", ld_alpha=0.5)
    assert found == pytest.approx(expected, abs=1e-3)
    plain = fmean(-log_sigmoid(0.1 * r["d"]) for r in first_batch(other, history, runtime))
    assert abs(found - plain) > 5e-3


def test_the_losses_that_params_know_are_the_losses_that_trl_knows():
    from inspect import getsource
    from typing import get_args

    from trl import DPOTrainer

    from stages.guard.sections.training import Dpo

    known = set(get_args(get_args(Dpo.model_fields["loss"].annotation)[0]))
    trls = set(re.findall(r'loss_type == "(\w+)"', getsource(DPOTrainer._compute_loss)))
    assert trls == known - losses.ALONE and set(LOSS["loss"]) <= known
