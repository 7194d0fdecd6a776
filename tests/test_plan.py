"""The plan: arithmetic worked by hand, the stages that an edit reruns, what cannot work, forecasts from what ran."""

import json
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.guard import chunks, facts, feasible, integrity, memory, params, spent
from stages.guard.facts import Table
from stages.guard.refusal import Refusal
from stages.tools import spent as tools_spent
from stages.tools.plan import changes, devices, flow, forecast, graph, published, refusals, work
from stages.tools.plan.work import Case
from stages.tools.profile import compose
from tests.conftest import copy_tree, sh
from tests.trust import graph as trusted
from tests.trust.edits import EDITS

LLAMA = published.ARCHITECTURES["llama-3-8b"]
SMOLLM = published.ARCHITECTURES["smollm2-135m"]
BILLIONS = 8_030_261_248
"""Weights of Llama 3 8B: 2 x 128,256 x 4,096 + 32 x (218,103,808 + 2 x 4,096) + 4,096."""


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with the paper's profile, in which nothing ever ran."""
    folder = copy_tree(tmp_path_factory.mktemp("paper"))
    (folder / "dvc.lock").unlink()
    shutil.rmtree(folder / "metrics")
    (folder / "params.yaml").write_text(compose("paper"), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def stages(paper: Path) -> list[graph.Stage]:
    return graph.load(paper)[0]


def flow_of(folder: Path, every: list[graph.Stage], *settings: str) -> flow.Flow:
    """The tables and models of the paper's run from scratch with some settings."""
    text = compose("paper", list(settings))
    settled = params.check(params.YAML(typ="safe", pure=True).load(text), "params.yaml")
    return flow.Flow(folder, every, {stage.name for stage in every}, settled, {})


def case(module: str, **given: Any) -> Case:
    """A run, with the layout of one process."""
    runtime = {
        "gradient_checkpointing": False,
        "processes": 1,
        "workers": 1,
        "gpus_per_worker": 1,
        "engine_sequences": 128,
    }
    runtime |= given.get("runtime", {})
    return Case(module, given.get("tables", {}), given.get("shapes", {}), given.get("params", {}), runtime)


# ---- memory, operations, tokens


def test_weights_follow_from_the_shape_and_are_counted_where_a_file_is_there(tmp_path):
    assert facts.weights(LLAMA) == BILLIONS and facts.weights(SMOLLM) == 134_515_008
    header = {"a": {"dtype": "F32", "shape": [2, 3]}, "b": {"dtype": "F32", "shape": [5]}, "__metadata__": {"x": "y"}}
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    config = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert facts.weights(facts.shape(tmp_path) or LLAMA) == 11


def test_a_table_s_tokens_are_read_off_its_numbers_ids_or_texts():
    said = [[{"role": "user", "content": "x" * 48}], [{"role": "user", "content": "x" * 96}]]
    rows = {"id": ["a", "a"], "prompt": said, "completion": ["y" * 24, "y" * 72], "tokens": [4, 8]}
    counted = pa.table(rows)
    # 72 bytes at 4.8 each and 5 tokens around a message, 5 for the header of the answer; two rows of one prompt
    assert facts.means(counted.to_batches()[0]) == (25.0, 6.0, 2.0)
    assert facts.means(counted.drop_columns(["tokens"]).to_batches()[0]) == (25.0, 10.0, 2.0)
    ids = counted.drop_columns(["tokens"]).append_column("token_ids", [[[1, 2], [3, 4, 5, 6]]])
    assert facts.means(ids.to_batches()[0]) == (25.0, 3.0, 2.0)


@pytest.mark.parametrize(
    ("zero", "wanted"),
    [
        (0, 16 * BILLIONS),
        (1, (4 + 4 + 8 / 8) * BILLIONS),
        (2, (4 + 4 / 8 + 8 / 8) * BILLIONS),
        (3, 16 * BILLIONS / 8),  # 16.06 GB on each of eight
    ],
)
def test_a_training_of_8b_holds_what_zero_leaves_on_each_of_eight(zero, wanted):
    assert memory.trained(LLAMA, 0, False, zero, 8) == wanted


def test_under_an_adapter_only_its_own_weights_have_gradients_and_an_optimiser():
    # rank 16 x 32 layers x (q and o 2 x 8,192, k and v 2 x 5,120, three of the MLP 3 x 18,432)
    learning = 16 * 32 * (16_384 + 10_240 + 55_296)
    assert learning == memory.adapter(LLAMA, 16) == 41_943_040  # as peft counts
    assert memory.trained(LLAMA, 16, False, 0, 1) == 4 * BILLIONS + 16 * learning
    assert memory.trained(LLAMA, 16, True, 0, 1) == 0.5 * BILLIONS + 16 * learning


def test_the_bound_of_a_micro_batch_is_near_what_a_gpu_held():
    """docs/performance.md: 8 pairs of at most 777 tokens of SmolLM2-135M in bfloat16 took 14.1 GiB."""
    states = memory.trained(SMOLLM, 0, False, 0, 1)
    assert (states + memory.activations(SMOLLM, 16 * 777, 2, False, True)) / 2**30 == pytest.approx(14.1, rel=0.15)


def test_a_forward_pass_takes_two_operations_a_weight_and_training_six():
    products = 32 * 218_103_808 + 128_256 * 4096  # the embeddings are looked up
    assert work.forward(LLAMA, tokens=10, length=0) == 2 * products * 10
    attention = 2 * 32 * 4096 * 100  # a token looks at 50 others on average, twice
    assert work.forward(LLAMA, tokens=1, length=100) == 2 * products + attention
    asked = {"sft.rows": 3, "sft.epochs": 2}
    tables = {"demonstrations": Table(10, 60, 40)}
    trained = work.of(case("training.sft", tables=tables, shapes={"model": LLAMA}, params=asked))
    assert trained.tokens == 2 * 3 * 100 and trained.flop == 3 * 600 * (2 * products + attention)


def test_a_reward_model_is_cut_and_has_no_head_and_checkpointing_computes_once_more():
    asked, tables = {"reward_model.epochs": 1, "reward_model.layers": 12}, {"train": Table(5, 60, 40)}
    given = {"tables": tables, "shapes": {"model": SMOLLM}, "params": asked}
    plain = work.of(case("training.reward_model", **given))
    again = work.of(case("training.reward_model", **given, runtime={"gradient_checkpointing": True}))
    each = 2 * 12 * 3_538_944 + 2 * 12 * 576 * 100
    assert plain.tokens == 2 * 5 * 100 and plain.flop == 3 * 1000 * each and again.flop == 4 * 1000 * each


def test_a_prompt_is_computed_once_for_all_its_answers():
    tables = {"candidates": Table(16, 100, 50, group=8)}
    scored = work.of(case("signals.scorers.reward_model", tables=tables, shapes={"reward": SMOLLM}))
    assert scored.tokens == 16 * 50 + 2 * 100 and scored.passes == 2 * 2
    mixed = {"responses": Table(16, 100, 50, group=8)}
    both = {"reward": SMOLLM, "model": SMOLLM}
    assert work.of(case("signals.measure", tables=mixed, shapes=both)).tokens == 2 * 16 * 150


@pytest.mark.parametrize(("form", "models"), [("ratio", 2), ("sum", 1), ("average", 1)])
def test_only_the_ratio_of_an_implicit_reward_asks_the_reference(form, models):
    given = {"tables": {"candidates": Table(16, 100, 50, group=8)}, "shapes": {"policy": SMOLLM, "model": SMOLLM}}
    scored = work.of(case("signals.scorers.implicit", **given, params={"implicit.form": form}))
    assert scored.tokens == models * (16 * 50 + 2 * 100)


def test_pi0_s_own_log_probability_as_a_reward_is_counted_though_both_options_name_it():
    """A model that two options name is written down once, and by the first of them."""
    given = {"tables": {"candidates": Table(16, 100, 50, group=8)}, "shapes": {"policy": SMOLLM}}
    scored = work.of(case("signals.scorers.implicit", **given, params={"implicit.form": "sum"}))
    assert scored.tokens == 16 * 50 + 2 * 100


def test_a_chat_benchmark_is_answered_turn_by_turn_and_a_referee_here_reads_two_answers(paper, stages, tmp_path):
    rated = "{task: mt_bench, raw: x, questions: 80, baseline: null, max_tokens: 500, words: data/raw/judge.jinja}"
    flown, path = flow_of(paper, stages, f"chats={{mt: {rated}}}"), "data/turns/pi1/mt.parquet"
    asked = stages[0]._replace(module="benchmarks.chats.questions", words={"name": ["mt"]})
    assert flow.RULES[asked.module](flown, asked, path) == Table(80, published.PAIR_TOKENS, 2 * 0.6 * 500)
    columns = {"id": ["a", "b"], "completions": [["x", "y"], ["z"]], "tokens": [[100, 200], [300]]}
    pq.write_table(pa.table(columns), tmp_path / "answers.parquet")
    answers = facts.table(tmp_path / "answers.parquet")
    assert answers == Table(2, 0.0, 300.0)
    talked = work.of(case("benchmarks.chats.turns", tables={"answers": answers}, shapes={"policy": LLAMA}))
    assert (talked.kind, talked.tokens) == ("sample", 600)
    judge = {"referee.served": None, "referee.max_tokens": 100}
    given = {"tables": {"answers": answers}, "shapes": {"model": SMOLLM}}
    read = work.of(case("benchmarks.chats.verdicts", **given, params=judge))
    assert (read.kind, read.tokens) == ("sample", 2 * 2 * 100) and read.flop > 2 * 2 * 2 * 60
    weighed = work.of(case("benchmarks.chats.verdicts", **given, params={"referee.served": None}))
    assert (weighed.kind, weighed.tokens) == ("score", 2 * 2 * (60 + 2 * 300))
    assert work.of(case("benchmarks.chats.verdicts", **given, params=judge | {"referee.served": "x"})).flop == 0


@pytest.mark.parametrize(("task", "written"), [("mt_bench", 512), ("alpaca_eval", None)])
def test_a_referee_that_weighs_two_letters_has_no_limit_of_what_it_writes(paper, stages, task, written):
    baseline = "null" if task == "mt_bench" else "output"
    entry = (
        f"{{task: {task}, raw: x, questions: 80, baseline: {baseline}, max_tokens: 500, words: data/raw/judge.jinja}}"
    )
    flown = flow_of(paper, stages, f"chats={{one: {entry}}}")
    stage = stages[0]._replace(module="benchmarks.chats.verdicts", words={"asked": ["data/chats/one.parquet"]})
    assert forecast.settings(stage, flown).get("referee.max_tokens") == written


def test_a_ranking_asks_in_both_orders():
    tables = {"candidates": Table(16, 100, 50, group=8)}
    given = {"tables": tables, "shapes": {"preference": SMOLLM}}
    asked = {"tournament": 2 * 2 * 7, "all_pairs": 2 * 8 * 7}
    for ranking, questions in asked.items():
        found = work.of(case("signals.scorers.preference_model", **given, params={"pairwise.ranking": ranking}))
        assert found.passes == questions


def test_an_iteration_of_the_paper_has_the_tokens_that_its_params_say(paper, stages):
    tables = flow_of(paper, stages)
    named = {stage.name: stage for stage in stages}
    made = forecast.case_of(named["generate@t0"], tables)
    assert made.tables["candidates"] == Table(160_000, published.PAIR_TOKENS, 0.6 * 2048, 8)
    assert work.of(made).tokens == 160_000 * 0.6 * 2048
    trained = work.of(forecast.case_of(named["dpo@t0"], tables))
    assert trained.tokens == pytest.approx(2 * 2 * 20_000 * (300 + 1228.8)) and trained.devices == 8
    assert tables.table("data/pairs/offline.parquet").rows == 60_000
    assert tables.shape("models/pi3") == LLAMA and tables.shape("models/instruct") == LLAMA


def test_measure_reads_pi0_once_for_its_own_answers(paper, stages):
    """And so it is written down of a run, since the next forecast takes its rate from there."""
    flown = flow_of(paper, stages)
    read = {
        stage.name: set(forecast.case_of(stage, flown).shapes) for stage in stages if stage.module == "signals.measure"
    }
    assert read["measure_first@pi0"] == {"reward", "policy"} and read["measure@t0"] == {"reward", "policy", "model"}
    assert spent.once({"policy": [Path("a")], "model": [Path("a")], "reward": [Path("b")]}).keys() == {
        "policy",
        "reward",
    }


def test_a_model_that_nobody_published_is_sized_by_its_name():
    assert facts.weights(published.shape("acme/Wonder-7.5B-it") or LLAMA) == 7_500_000_000
    assert published.shape("acme/wonder") is None and published.shape("meta-llama/Meta-Llama-3-8B-Instruct") == LLAMA


# ---- which stages, and why


def recorded(folder: Path) -> dict[str, dict]:
    """dvc.lock as if everything had just run: what the stages have now; of what is not there a made-up digest."""
    every = graph.load(folder)[0]
    now = changes.Now(folder, params.load(folder / "params.yaml").model_dump(), {}, pulled=True)
    paths = {path for stage in every for path in (*stage.deps, *stage.outs)}
    made = {
        path: {"path": path, "md5": now.digest(path) or f"of {path}", "size": size(folder / path)} for path in paths
    }
    found = {}
    for stage in every:
        tracked = {key: lock_text(now.setting(key)) for key in stage.tracked.get("params.yaml", [])}
        keys = {key: now.code_key(stage.module) for key in stage.tracked.get("code.lock.yaml", [])}
        found[stage.name] = {
            "cmd": stage.command,
            "params": {"params.yaml": tracked, "code.lock.yaml": keys},
            "deps": [made[dep] for dep in stage.deps],
            "outs": [made[out] for out in stage.outs],
        }
    return found


def size(path: Path) -> str:
    return str(changes.size(path) if path.exists() else 0)


def lock_text(value: Any) -> Any:
    """A value as it is read back from dvc.lock, where all leaves are text."""
    if isinstance(value, dict):
        return {key: lock_text(each) for key, each in value.items()}
    if isinstance(value, list):
        return [lock_text(each) for each in value]
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict]]:
    """A clone, and its lock as if everything had run."""
    folder = copy_tree(tmp_path_factory.mktemp("settled"))
    return folder, recorded(folder)


def planned(folder: Path, known: dict[str, dict]) -> tuple[dict[str, changes.Verdict], dict[str, Any]]:
    """The stages that would run, and the graph as tests/trust sees it."""
    every = graph.load(folder)[0]
    now = changes.Now(folder, params.load(folder / "params.yaml").model_dump(), known, pulled=True)
    return changes.verdicts(every, now), {stage.name: seen(stage) for stage in every}


def seen(stage: graph.Stage) -> Any:
    deps, outs = ([SimpleNamespace(def_path=path) for path in paths] for paths in (stage.deps, stage.outs))
    return SimpleNamespace(deps=deps, outs=outs, params=[])


def test_nothing_would_run_where_nothing_has_changed(settled):
    assert planned(*settled)[0] == {}


REASONS = {
    "`dpo.beta`": "dpo.beta 0.1 -> 0.25",
    "one more iteration": "never ran here",
    "`stop.max_kl`": "stop.max_kl null -> 50.0",
    "an edited raw row, their number the same": "data/raw/quickstart/annotations.jsonl has changed",
    "the helper `stages/training/harness.py`": "code training_sft ",
    "a comment in `stages/sampling/generate.py`": "stages has changed",
}
"""A reason that the plan must give for the first stage, by edit of tests/trust/edits.py."""


@pytest.mark.parametrize("edit", REASONS)
def test_an_edit_plans_exactly_the_stages_that_it_reruns_and_says_why(settled, edit):
    folder, known = settled
    try:
        EDITS[edit].change(folder)
        found, every = planned(folder, known)
    finally:
        sh("git checkout -q . && git clean -qfd -e .scratch", folder)
    wanted = trusted.downstream(every, EDITS[edit].roots) | ({"fingerprint"} if EDITS[edit].code else set())
    assert set(found) == wanted
    assert any(reason.startswith(REASONS[edit]) for verdict in found.values() for reason in verdict.own)


def test_a_changed_leaf_of_a_section_is_named_from_what_to_what():
    was = {"model": "a", "settings": {"x": "1"}, "steps": ["1", "2"]}
    assert (
        changes.changed("base", was, {"model": "a", "settings": {"x": 2}, "steps": [1, 2]}) == "base.settings.x 1 -> 2"
    )
    assert (
        changes.changed("base", was, {"model": "a", "settings": {"x": 1}, "steps": [1]}) == "base.steps: 2 entries -> 1"
    )


@pytest.mark.parametrize(
    ("text", "value", "alike"),
    [
        ("3e-05", 3.0e-5, True), ("1", 1.0, True), ("", None, True), ("null", None, True), ("true", True, True),
        ("false", True, False), ("null", "null", True), ("0.1", 0.2, False), ("x", 1, False),
        (["1", "0.7"], [1.0, 0.7], True), ({"a": "1"}, {"a": 1}, True), ({"a": "1"}, {"a": 1, "b": 2}, False),
    ],
)  # fmt: skip
def test_a_value_of_the_lock_is_compared_by_what_it_means(text, value, alike):
    assert changes.same(text, value) == alike


def stage(name: str, deps: list[str], outs: list[str]) -> graph.Stage:
    return graph.Stage(name, f"run {name}", "pairs.rank", {}, deps, outs, {}, True)


def test_what_is_missing_is_made_or_brought_from_the_cache_and_what_was_altered_is_made(tmp_path):
    (tmp_path / "in").write_text("x")
    (tmp_path / "made").write_text("as it was")
    lock = {
        "one": {"cmd": "run one", "deps": [{"path": "in", "md5": integrity.digest(tmp_path / "in")}],
                "outs": [{"path": "made", "size": "9", "md5": integrity.digest(tmp_path / "made")}]},
        "two": {"cmd": "run two", "deps": [{"path": "made", "md5": integrity.digest(tmp_path / "made")}],
                "outs": [{"path": "gone", "size": "1", "md5": "abcdef"}]},
    }  # fmt: skip
    stages = [stage("one", ["in"], ["made"]), stage("two", ["made"], ["gone"])]
    found = lambda pulled=False: changes.verdicts(stages, changes.Now(tmp_path, {}, lock, pulled))  # noqa: E731
    assert found(pulled=True) == {}
    assert found() == {"two": changes.Verdict(["gone is missing"], [], False)}
    cached = tmp_path / integrity.CACHE / "ab" / "cdef"
    cached.parent.mkdir(parents=True)
    cached.write_text("x")
    assert found()["two"].restored
    (tmp_path / "made").write_text("as it wos")
    assert found()["one"].own == ["made is not as recorded"] and found()["two"].follows == ["made"]


def test_a_large_raw_file_is_hashed_once_for_each_of_its_states(tmp_path):
    (tmp_path / "raw").write_bytes(b"x" * (changes.SMALL + 1))
    look = lambda: changes.Now(tmp_path, {}, {}, False).digest("raw")  # noqa: E731
    first, stamp = look(), tmp_path / changes.STAMPS / "raw"
    assert first == integrity.digest(tmp_path / "raw")
    stamp.write_text(stamp.read_text().replace(first, "known"))
    assert look() == "known"
    time.sleep(0.01)
    (tmp_path / "raw").write_bytes(b"y" * (changes.SMALL + 1))
    assert look() == integrity.digest(tmp_path / "raw") != first


# ---- what cannot work


GPU = devices.gpu("h100")


@pytest.fixture
def refused(paper: Path, stages: list[graph.Stage]) -> Callable[..., list[str]]:
    """What the plan refuses of the paper with some settings, on GPUs of a kind."""
    return lambda *settings, gpu="h100": refusals.found(
        flow_of(paper, stages, *settings), stages, devices.gpu(gpu), [], 2
    )


def test_the_paper_has_room_on_a_node_of_eight(refused):
    assert refused() == []


def test_a_pool_that_is_too_small_for_the_iterations_is_refused_before_anything_is_brought(refused):
    (told,) = refused("prompts.per_iteration=90000")
    pool = 60_000 + 179_000 - 2_000
    assert told == (
        "params.yaml: 3 iterations x prompts.per_iteration = 90000 want 270000 prompts, "
        f"the pool has {pool}; lower prompts.per_iteration to 79000, or bring more prompts"
    )


def test_a_context_that_is_too_short_is_refused_by_the_published_architecture(refused):
    told = refused("prompts.max_tokens=7000", "dpo.max_tokens=9100")
    assert told == [
        f"params.yaml: prompts.max_tokens = 7000 and generate.max_new_tokens = 2048 are over the 8192 tokens of "
        f"models/{name}'s context; lower one of them"
        for name in ("base", "instruct")
    ]


def test_states_that_fit_no_gpu_are_refused_with_their_size(refused):
    told = refused("runtime.deepspeed=0", gpu="a100-80g")
    assert (
        "params.yaml: dpo holds 119.7 GiB of weights, gradients and optimiser, a GPU has 74.5; share them by"
        in told[-1]
    )
    small = refused(gpu="l4")
    assert not [line for line in small if "dpo holds" in line]  # 15.0 GiB of 22.4, shared by eight
    whole = refused("runtime.engine_memory_share=0.5", gpu="l4")
    assert (
        "the engine holds 15.0 GiB of weights, its share of a GPU is 11.2; raise runtime.gpus_per_worker" in whole[-1]
    )


def test_a_disk_that_is_too_small_is_refused(tmp_path):
    one = forecast.Cost("dpo@t0", [], work.Work("train"), 1.0, "roofline", 0.0, 1e18, 0.0)
    assert refusals.disk(tmp_path, [one], 2).startswith("the disk is too small: 1862645149.2 GiB are wanted")
    assert refusals.disk(tmp_path, [one._replace(outputs=1.0)], 2) == ""


def test_a_raw_file_that_is_missing_is_refused(paper, stages):
    first = stages[0]._replace(deps=["data/raw/nowhere"])
    told = refusals.missing(flow_of(paper, stages), [first])
    assert told == ["data/raw/nowhere is missing; bring it with `dvc pull data/raw/nowhere`, or mend params.yaml"]


def room(folder: Path, pool: int, iterations: int = 2) -> tuple[Path, Any]:
    account = folder / "prompts.json"
    account.write_text(json.dumps({"pool": pool}), encoding="utf-8")
    return account, SimpleNamespace(prompts=SimpleNamespace(per_iteration=50), iterations=[None] * iterations)


def test_the_guard_refuses_an_account_of_too_few_prompts(tmp_path):
    feasible.check_account(*room(tmp_path, 100))
    with pytest.raises(
        Refusal, match=re.escape("want 100 prompts, the pool has 99; lower prompts.per_iteration to 49")
    ):
        feasible.check_account(*room(tmp_path, 99))


def test_the_guard_looks_at_the_recorded_prompts_only_where_they_are_the_ones_asked_for(clone):
    settled = params.load(clone / "params.yaml")
    more = settled.model_copy(update={"prompts": settled.prompts.model_copy(update={"per_iteration": 100})})
    feasible.check_pool(settled, clone)
    with pytest.raises(
        Refusal, match=r"2 iterations x prompts\.per_iteration = 100 want 200 prompts, the pool has 156"
    ):
        feasible.check_pool(more, clone)
    other = more.model_copy(update={"prompts": more.prompts.model_copy(update={"test": 129})})
    feasible.check_pool(other, clone)  # `prompts` runs again, and the new account is looked at


def test_the_guard_refuses_a_layout_that_the_machine_cannot_hold(tmp_path, monkeypatch):
    settled = params.check(params.YAML(typ="safe", pure=True).load(compose("paper", ["runtime.deepspeed=2"])), "paper")
    config = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
    config |= {"intermediate_size": 14_336, "vocab_size": 128_256}
    for name in ("base", "instruct"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setattr(spent, "gpus", lambda: (("card", 40 * 2**30),) * 4)
    with pytest.raises(Refusal, match=r"runtime\.processes / runtime.nodes = 8 / 1, there are 4 GPUs; lower it"):
        feasible.check_gpus(settled)
    with pytest.raises(Refusal, match=r"sft holds 41\.1 GiB of weights, gradients and optimiser, a GPU has 40\.0"):
        feasible.check_memory(settled, tmp_path)


# ---- earlier runs


def test_the_guard_writes_down_what_a_stage_cost_and_no_stage_fails_for_it(clone):
    command = "python -m stages.guard.run data.mix_start --mixed mixed.parquet --account account.json"
    assert sh(command, clone).returncode == 0
    line = spent.noted(clone / ".scratch")[-1]
    assert line["stage"] == "data.mix_start" and line["outs"] == ["mixed.parquet", "account.json"]
    assert (
        0.1 < line["seconds"] < 60
        and 0.03 < line["memory_gib"] < 2
        and line["device"].endswith(f"x {len(os.sched_getaffinity(0))}")
    )
    assert line["files"]["mixed"] == [{"rows": 0, "prompt": 0.0, "answer": 0.0, "group": 1.0}]
    (clone / ".scratch" / spent.JOURNAL).unlink()
    (clone / ".scratch" / spent.JOURNAL).mkdir()
    assert sh(command, clone).returncode == 0


def test_a_run_that_went_on_from_an_earlier_one_is_known(tmp_path):
    for wanted in (False, True):
        with pytest.raises(OSError), chunks.kept("key", tmp_path) as begun:
            assert begun == wanted
            (tmp_path / "rows/key").mkdir(parents=True, exist_ok=True)
            raise OSError


def test_what_each_stage_cost_is_told_of_the_last_runs_the_dearest_first(smoke):
    line = json.loads((smoke / ".scratch" / spent.JOURNAL).read_text().splitlines()[-1])
    dear = ran(10, 0.0).case
    files = {"demonstrations": [dear.tables["demonstrations"]._asdict()], "model": [SMOLLM._asdict()]}
    asked = {"params": dear.params, "runtime": dear.runtime | {"processes": 4}}
    trained = line | {"stage": "training.sft", "outs": ["models/pi0"], "files": files, "memory_gib": 1.5} | asked
    cheap = line | {"stage": "data.split", "outs": ["data/a.parquet"], "seconds": 12.0, "memory_gib": 0.2}
    journal = [trained | {"seconds": 900.0}, cheap, cheap | {"outs": ["data/b.parquet"]}, trained | {"seconds": 36.0}]
    costs = tools_spent.by_stage(tools_spent.last_runs(journal))
    assert costs == {"training.sft": (1, 36.0, 0.04, 1.5), "data.split": (2, 24.0, 0.0, 0.2)}
    assert "| `data.split` | 2 | 24.0 | 40.0% | 0.00 | 0.2 |" in tools_spent.table(costs)
    told = sh("python -m stages.tools.spent", smoke).stdout
    assert "| `training.dpo` | 3 |" in told and "| all | " in told


def test_a_line_that_was_cut_is_left_out(tmp_path):
    (tmp_path / spent.JOURNAL).write_text('{"a": 1}\n{"b": \n{"c": 3}\n', encoding="utf-8")
    assert spent.noted(tmp_path) == [{"a": 1}, {"c": 3}]


def ran(rows: int, seconds: float, device: str = GPU.name) -> devices.Past:
    shapes, asked = {"model": SMOLLM}, {"sft.rows": None, "sft.epochs": 1, "dtype": "bfloat16"}
    past = case("training.sft", tables={"demonstrations": Table(rows, 60, 40)}, shapes=shapes, params=asked)
    return devices.Past(past, device, seconds, 0.0)


def test_twice_the_rows_take_twice_the_seconds_behind_the_start():
    now = ran(200, 0).case
    runs = devices.alike(now, GPU, [ran(100, 140.0), ran(100, 240.0), ran(50, 90.0), ran(100, 1.0, "another")])
    # of 100 rows behind a start of 40 s: 100, 200 and 100 seconds; the median of the rates is that of the first
    assert devices.measured(work.of(now), runs, GPU) == pytest.approx(40 + 2 * 100)
    assert devices.measured(work.of(now), [], GPU) is None


def test_a_run_whose_code_read_other_params_tells_nothing():
    old = ran(100, 140.0)
    assert devices.rate(old._replace(case=old.case._replace(params={})), GPU) is None


def test_the_roofline_of_writing_tokens_is_the_slower_of_arithmetic_and_memory():
    made = Table(256, 300, 400)
    of = case("sampling.respond", tables={"responses": made}, shapes={"policy": LLAMA}, params={"dtype": "bfloat16"},
              runtime={"engine_sequences": 64})  # fmt: skip
    cache = 2 * 32 * 8 * 128 * 2  # bytes of keys and values a token
    step = (2 * BILLIONS + 64 * 500 * cache) / (3.35e12 * 0.6)
    assert devices.streaming(work.of(of), of, GPU) == pytest.approx(4 * 400 * step)
    assert devices.by_data_sheet(work.of(of), of, GPU) == pytest.approx(75 + 2 * BILLIONS / 1e9 + 4 * 400 * step)


# ---- the command


DEAR = {"torch", "transformers", "trl", "vllm", "datasets", "polars"}


def test_the_plan_of_the_paper_takes_under_three_seconds_and_imports_nothing_dear(paper):
    (paper / "params.yaml").write_text(compose("paper"), encoding="utf-8")
    look = (
        "import sys; from stages.tools.plan import __main__ as plan; sys.argv[1:] = ['--gpu', 'h100']\n"
        f"try: plan.main()\nfinally: print(sorted({DEAR} & set(sys.modules)))"
    )
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([sys.executable, "-c", look], cwd=paper, capture_output=True, text=True)
    took, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"the plan of the paper: {took:.1f} s, {processor:.1f} s of processor time")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]" and "all 144 stages" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120
    assert processor < 3


def test_what_cannot_work_ends_the_command_with_1_and_a_line(paper):
    (paper / "params.yaml").write_text(compose("paper", ["prompts.per_iteration=90000"]), encoding="utf-8")
    done = sh("python -m stages.tools.plan --gpu h100", paper)
    assert done.returncode == 1 and done.stderr.startswith("plan: cannot work: params.yaml: 3 iterations x")
    assert done.stderr.count("\n") == 1 and "all 144 stages" in done.stdout
    text = compose("paper").replace("per_iteration: 20000", "per_iteration: 0")
    (paper / "params.yaml").write_text(text, encoding="utf-8")
    done = sh("python -m stages.tools.plan", paper)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("plan: params.yaml: prompts.per_iteration = 0")


def test_a_forecast_is_laid_beside_what_the_run_took(clone):
    told = {
        "a@x": {"outs": ["a"], "by": "roofline", "seconds": 30.0},
        "b": {"outs": ["b"], "by": "roofline", "seconds": 1},
    }
    (clone / "forecast.json").write_text(json.dumps({"device": "d", "stages": told}), encoding="utf-8")
    (clone / ".scratch").mkdir()
    for took, code in ((25.0, 0), (60.0, 1)):
        lines = [{"outs": ["a", "z"], "seconds": took}, {"outs": ["b"], "seconds": 5.0}]
        (clone / ".scratch" / spent.JOURNAL).write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        done = sh("python -m tests.perf.plan forecast.json", clone)
        assert done.returncode == code and f"| `a@x` | roofline | 30.0 | {took} |" in done.stdout


@pytest.mark.slow
def test_after_a_run_nothing_is_planned_and_an_edit_is_forecast_from_what_ran(own_smoke):
    done = sh("python -m stages.tools.plan", own_smoke)
    assert done.returncode == 0 and "all 0 stages" in done.stdout, done.stdout + done.stderr
    shutil.rmtree(own_smoke / "models/pi1")
    assert "all 0 stages" in sh("python -m stages.tools.plan --pulled", own_smoke).stdout
    assert "1 stages are not run" in sh("python -m stages.tools.plan", own_smoke).stdout
    sh("dvc checkout && python -m stages.tools.profile smoke dpo.beta=0.3", own_smoke)
    sh("python -m stages.tools.plan --json > forecast.json", own_smoke)
    told = json.loads((own_smoke / "forecast.json").read_text(encoding="utf-8"))
    every = trusted.stages(own_smoke)
    assert set(told["stages"]) == trusted.downstream(every, ["dpo*"])
    by_dvc = json.loads(sh("dvc status --json", own_smoke).stdout)
    assert set(by_dvc) == {name for name, cost in told["stages"].items() if cost["own"]}
    journal = {line["outs"][0]: line for line in spent.noted(own_smoke / ".scratch")}
    for name, cost in told["stages"].items():
        took = journal[cost["outs"][0]]["seconds"]
        assert cost["by"] == "measured", name
        if took > 5:
            assert 0.5 < cost["seconds"] / took < 2, (name, cost["seconds"], took)


@pytest.mark.slow
def test_a_second_iteration_that_will_find_no_prompts_is_refused_before_the_first_is_sampled(own_smoke):
    account = json.loads((own_smoke / "metrics/prompts.json").read_text(encoding="utf-8"))
    each = account["pool"] // 2 + 1
    sh(f"python -m stages.tools.profile smoke prompts.per_iteration={each}", own_smoke)
    done = sh("dvc --wait-for-lock repro", own_smoke)
    assert (
        done.returncode
        and f"sampling.generate: params.yaml: 2 iterations x prompts.per_iteration = {each}" in done.stderr
    )
