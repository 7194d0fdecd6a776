"""dvc.yaml against the code: DVC sees neither imports nor the params that a stage reads, so these tests hold them
equal.
"""

from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from stages.guard import fingerprint, options
from stages.tools.profile import compose
from tests.trust.graph import module_of, name_of
from tests.trust.reads import keys_read

ROOT = Path(__file__).resolve().parent.parent
STAGES: list[Any] = [stage for stage in Repo(str(ROOT)).index.stages if stage.cmd]
NAMED = {name_of(stage): stage for stage in STAGES}


def test_there_are_stages_and_each_runs_under_the_guard():
    assert len(STAGES) > 40
    assert len(NAMED) == len(STAGES)  # a name stands in one of the two files
    assert all(
        stage.cmd.startswith("python -m stages.guard.run ") and not set(stage.cmd) & set("|;&<>$`") for stage in STAGES
    )


@pytest.mark.parametrize("name", NAMED)
def test_a_stage_tracks_exactly_the_params_it_reads_and_its_own_code(name):
    tracked = {key for dep in NAMED[name].params if dep.def_path == "params.yaml" for key in dep.params}
    code = {key for dep in NAMED[name].params if dep.def_path == "code.lock.yaml" for key in dep.params}
    module = module_of(NAMED[name])
    if module == "guard.fingerprint":
        assert not tracked and not code
        return
    assert tracked == keys_read(module, ROOT)
    assert code == {module.replace(".", "_")}


@pytest.mark.parametrize("name", NAMED)
def test_the_command_reads_its_deps_and_writes_its_outs_and_nothing_else(name):
    stage = NAMED[name]
    import importlib

    types, writes = options.ports(importlib.import_module(f"stages.{module_of(stage)}").main)
    arguments = options.parse(stage.cmd.split()[4:], types)
    read = {str(p) for key, value in arguments.items() if key not in writes for p in options.paths(value)}
    written = {str(p) for key in writes for p in options.paths(arguments[key])}
    assert read == {dep.def_path for dep in stage.deps if dep not in stage.params}
    assert written == {out.def_path for out in stage.outs}


def test_every_dep_is_exactly_one_out_or_a_file_in_git():
    outs = {out.def_path for stage in STAGES for out in stage.outs}
    for stage in STAGES:
        for dep in stage.deps:
            inside = (
                dep.def_path in outs
                or dep.def_path.startswith("data/raw/")
                or dep.def_path in ("params.yaml", "stages", "requirements.lock")
            )
            assert inside, (stage.addressing, dep.def_path)


def test_rank_reads_every_shard_that_generate_writes():
    for t in ("t0", "t1"):
        made = {
            out.def_path.replace("candidates", "scores/reward_model")
            for n, s in NAMED.items()
            if n.startswith(f"generate@{t}-")
            for out in s.outs
        }
        read = {dep.def_path for dep in NAMED[f"rank@{t}"].deps if dep.def_path.startswith("data/scores/")}
        batch = {out.def_path for out in NAMED[f"batch@{t}"].outs}
        assert made == read and len(made) == len(batch) > 1


def test_every_scorer_scores_all_that_can_be_asked_for_and_is_measured():
    from typing import get_args

    from stages.guard.params import Rank, load

    outs = {out.def_path for stage in STAGES for out in stage.outs}
    for scorer in get_args(Rank.model_fields["scorer"].annotation):
        assert {
            f"data/scores/{scorer}/{name}.parquet" for name in load(ROOT / "params.yaml").candidates
        } <= outs and f"signal@{scorer}" in NAMED


@pytest.mark.parametrize("scorer", ["preference_model", "judge", "implicit"])
def test_one_value_switches_the_ranker_and_asks_for_no_other(clone, scorer):
    from tests.trust import graph

    (clone / "params.yaml").write_text(compose("quickstart", [f"rank.scorer={scorer}"]))
    asked = {name for name in graph.stages(clone) if name.startswith("score_")}
    assert asked == {
        f"score_{scorer}@{name}" for name in ("heldout", "reward_bench", "pi0-0", "pi0-1", "pi1-0", "pi1-1")
    }
    assert ("preference_model" in graph.stages(clone)) == (scorer == "preference_model")


@pytest.mark.parametrize(
    ("setting", "asked"),
    [
        (
            "rank.scorer=refreshed",
            {"annotate_start", "annotate@t0", "annotate@t1", "reward_refreshed@t0", "reward_refreshed@t1"},
        ),
        ("rank.scorer=self_judge", {"score_self_judge@t0-0", "score_self_judge@t1-1", "rate_self_judge@heldout"}),
        ("offline.train=data/offline/mixed.parquet", {"prepare_offline", "filter_offline"}),
        ("evaluate.reads=judged", {"judge@pi0", "judge@offline", "judge@pi1", "judge@pi2"}),
    ],
)
def test_what_is_done_on_demand_is_not_done_unasked(clone, setting, asked):
    from tests.trust import graph

    assert not asked & set(graph.stages(clone))
    (clone / "params.yaml").write_text(compose("quickstart", [setting]))
    assert asked <= set(graph.stages(clone))


def test_iteration_ids_are_dvcs_index_names():
    assert {n for n in NAMED if n.startswith("dpo@")} == {"dpo@t0", "dpo@t1"}
    assert next(dep.def_path for dep in NAMED["dpo@t1"].deps) == "models/pi1"


def test_the_reference_is_pi0_in_every_iteration():
    for name in ("reference_offline", "reference@t0", "reference@t1", "dpo_offline", "dpo@t0", "dpo@t1", "measure@pi2"):
        assert "models/pi0" in {dep.def_path for dep in NAMED[name].deps}
    assert all("--reference models/pi0 " in NAMED[f"dpo@{t}"].cmd for t in ("t0", "t1"))


def test_an_iteration_can_start_from_pi0_and_refer_to_the_policy_before(clone):
    line = "- {id: t1, samples: pi1, makes: pi2, start: pi1, reference: pi0, rival: pi0}"
    text = compose("quickstart")
    assert line in text
    (clone / "params.yaml").write_text(
        text.replace(line, line.replace("start: pi1, reference: pi0", "start: pi0, reference: pi1"))
    )
    commands = {name_of(stage): str(stage.cmd) for stage in Repo(str(clone)).index.stages}
    assert (
        "--model models/pi0 --sampled models/pi1 --reference models/pi1 " in commands["dpo@t1"]
        and "--model models/pi1 " in commands["reference@t1"]
    )


def test_a_refreshed_reward_model_learns_from_the_samples_that_it_scores():
    def deps(name):
        return {dep.def_path for dep in NAMED[name].deps}

    assert "models/reward_pi1" in deps("score_refreshed@t0-0") and "data/annotated/pi1.parquet" in deps(
        "reward_refreshed@t0"
    )
    assert {"data/candidates/pi0-0.parquet", "data/candidates/pi0-1.parquet"} <= deps("annotate@t0")
    assert "data/annotated/pi1.parquet" in deps("annotate@t1")  # labels add up


def test_who_judges_itself_is_the_policy_that_was_sampled():
    assert all(
        f"--model models/pi{k} " in NAMED[f"score_self_judge@t{k}-{shard}"].cmd for k in (0, 1) for shard in (0, 1)
    )


def test_no_stage_imports_a_stage():
    stages = set(fingerprint.stage_modules(ROOT))
    for name in stages:
        closure = {p.stem for p in fingerprint.closure(name, ROOT)} - {name.split(".")[-1]}
        assert not closure & stages, name


def test_cpu_stages_import_no_torch():
    for name in (
        "data.filter",
        "data.split",
        "data.audit",
        "data.benchmarks",
        "data.sources.own",
        "data.prompts",
        "data.demonstrations",
        "data.batch",
        "evaluation.stop",
        "signals.annotate",
        "signals.annotate_start",
        "pairs.rank",
        "pairs.offline",
        "pairs.history",
        "evaluation.evaluate",
        "signals.pairs_as_candidates",
        "evaluation.reward_bench",
        "signals.scorers.ensemble",
        "signals.scorers.bag_of_words",
        "signals.scorers.longer",
        "evaluation.signal",
        "evaluation.best_of_n",
        "evaluation.signal_report",
        "evaluation.standings",
        "evaluation.select",
        "evaluation.report",
    ):
        assert not {"torch", "transformers", "vllm", "trl"} & set(fingerprint.locked_packages(name, ROOT)), name


@pytest.mark.parametrize("profile", ["smoke", "paper"])
def test_every_profile_draws_its_graph(clone, profile):
    (clone / "params.yaml").write_text(compose(profile))
    names = {stage.addressing.rpartition(":")[2] for stage in Repo(str(clone)).index.stages}
    last = "t2" if profile == "paper" else "t1"
    assert f"dpo@{last}" in names and f"generate@{last}-1" in names
