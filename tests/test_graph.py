"""dvc.yaml against the code: DVC sees neither imports nor the params that a stage reads, so these tests hold them
equal.
"""

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from stages.guard import fingerprint, options
from stages.guard.chunks import keys_read
from stages.guard.sections.signals import SIGNALS
from stages.tools.profile import compose
from tests.trust import graph, standin
from tests.trust.graph import module_of

ROOT = Path(__file__).resolve().parent.parent
NAMED = graph.stages(ROOT)
STAGES: list[Any] = list(NAMED.values())


def names(folder: Path) -> set[str]:
    return set(graph.stages(folder))


def test_there_are_stages_and_each_runs_under_the_guard():
    assert len(STAGES) > 40
    assert all(stage.cmd.startswith("python -m stages.guard.run ") for stage in STAGES)
    assert not any(set(stage.cmd) & set("|;&<>$`") for stage in STAGES)


@pytest.mark.parametrize("name", NAMED)
def test_a_stage_tracks_exactly_the_params_it_reads_and_its_own_code(name):
    tracked = {key for dep in NAMED[name].params if dep.def_path == "params.yaml" for key in dep.params}
    code = {key for dep in NAMED[name].params if dep.def_path == "code.lock.yaml" for key in dep.params}
    module = module_of(NAMED[name])
    if module == "guard.fingerprint":
        assert not tracked and not code
        return
    entry = re.findall(r"training\.base --name (\w+) ", NAMED[name].cmd)  # of a mapping, a stage tracks its own entry
    read = {f"{key}.{entry[0]}" if key == "bases" and entry else key for key in keys_read(module, ROOT)}
    assert tracked == read
    assert code == {module.replace(".", "_")}


@pytest.mark.parametrize("name", NAMED)
def test_the_command_reads_its_deps_and_writes_its_outs_and_nothing_else(name):
    stage = NAMED[name]
    import importlib

    types, writes = options.ports(importlib.import_module(f"stages.{module_of(stage)}").main)
    assert standin.ports(module_of(stage), ROOT) == (types, writes)
    arguments = options.parse(graph.words_of(stage)[1:], types)
    read = {str(p) for key, value in arguments.items() if key not in writes for p in options.paths(value)}
    written = {str(p) for key in writes for p in options.paths(arguments[key])}
    assert read == {dep.def_path for dep in stage.deps if dep not in stage.params}
    assert written == {out.def_path for out in stage.outs}


GATHERED = {"metrics/policy"}
"""Folders of several stages' outputs that a stage may read: git holds every file, and the reader checks their names."""


def test_every_dep_is_exactly_one_out_or_a_file_in_git():
    outs = {out.def_path for stage in STAGES for out in stage.outs}
    given = {"params.yaml", "stages", "requirements.lock", *GATHERED}
    for stage in STAGES:
        for dep in stage.deps:
            known = dep.def_path in outs | given or dep.def_path.startswith("data/raw/")
            assert known, (stage.name, dep.def_path)


def test_what_a_folder_gathers_is_in_git():
    gathered = [out for stage in STAGES for out in stage.outs if str(Path(out.def_path).parent) in GATHERED]
    assert len(gathered) == 4 and not any(out.use_cache for out in gathered)


DEAR = (
    "sft",
    "reward_model",
    "dpo_offline",
    "dpo@t0",
    "reference@t0",
    "generate@t0",
    "score_reward_model@",
    "measure@",
)


def test_a_dear_stage_has_no_output_that_takes_it_out_of_the_run_cache():
    """DVC saves no run of a stage with an output that is neither cached nor a metric."""
    for name, stage in NAMED.items():
        if name.startswith(DEAR):
            assert all(out.use_cache for out in stage.outs), name


def test_seeds_share_the_model_the_data_and_the_prompts_and_nothing_that_trains_or_samples():
    """What docs/experiments.md says of `make seeds`."""
    tracking = [name for name, stage in NAMED.items() if any("seed" in dep.params for dep in stage.params)]
    seeded = graph.downstream(NAMED, tracking)
    data = {"base@base", "prompts", "phrases", "prepare@quickstart", "mix_start", "filter@quickstart", "split", "audit"}
    judged = {"reward_bench", "reward_bench_2", "pairs_as_candidates"}
    assert set(NAMED) - seeded == data | judged | {"demonstrations", "offline", "batch@t0", "batch@t1", "fingerprint"}
    assert (len(NAMED), len(seeded)) == (57, 41)


def test_metrics_are_one_file():
    assert [out.def_path for stage in STAGES for out in stage.outs if out.is_metric] == ["metrics/summary.json"]


def test_rank_reads_what_the_ranker_says_of_what_generate_wrote():
    for t, sampled in (("t0", "pi0"), ("t1", "pi1")):
        assert [out.def_path for out in NAMED[f"generate@{t}"].outs] == [f"data/candidates/{sampled}"]
        assert graph.deps(NAMED[f"rank@{t}"]) == [f"data/scores/reward_model/{sampled}"]


SCORERS = get_args(SIGNALS)


def settings(scorer: str) -> list[str]:
    """What puts a ranker in the place of the reward model."""
    return [f"rank.scorer={scorer}", f"signals.{scorer}=[{scorer}]", "pretrained.model=own"]


@pytest.mark.parametrize("scorer", [name for name in SCORERS if name != "reward_model"])
def test_switching_the_ranker_adds_what_it_needs_and_nothing_else(clone, scorer):
    before = names(clone)
    (clone / "params.yaml").write_text(compose("quickstart", settings(scorer)))
    added = names(clone) - before
    more = {
        "preference_model": {"preference_model@preference_model"},
        "pretrained": {"pretrained@pretrained"},
        "ensemble": {
            *(f"reward_member@{k}-ensemble" for k in (1, 2)),
            *(f"rate_member@{k}-ensemble" for k in (1, 2)),
            *(f"score_member@{k}-t{t}-ensemble" for k in (1, 2) for t in (0, 1)),
        },
        "refreshed": {
            "annotate_start@refreshed",
            *(f"{stage}@t{t}-refreshed" for stage in ("annotate", "refresh_reward_model") for t in (0, 1)),
        },
    }
    own = {f"rate_{scorer}@{scorer}", f"signal_{scorer}@{scorer}", *(f"score_{scorer}@t{t}-{scorer}" for t in (0, 1))}
    assert added == own | more.get(scorer, set())


def test_a_signal_that_was_forgotten_on_the_command_line_is_named_with_what_to_add():
    with pytest.raises(ValueError, match=re.escape("add -S 'signals.judge=[judge]' to the command")):
        compose("quickstart", ["rank.scorer=judge"])


def test_what_is_done_on_demand_is_no_stage_unasked(clone):
    before = names(clone)
    own = "{own: {source: own, raw: data/raw/mine.jsonl, rule: {}, filter: {min_margin: 0, rows: 0}}}"
    asked = ["offline.train=data/offline/mixed.parquet", f"offline.set={own}"]
    (clone / "params.yaml").write_text(compose("quickstart", asked))
    assert names(clone) - before == {"prepare_offline@own", "filter_offline@own"}
    (clone / "params.yaml").write_text(compose("quickstart", ["evaluate.reads=judged_by", "evaluate.judge=[judge]"]))
    judged = {"judge_first@pi0-judge", "judge_first@offline-judge", "judge@t0-judge", "judge@t1-judge"}
    assert names(clone) - before == judged


def test_the_kth_iteration_is_dvcs_k_in_the_names_of_stages():
    assert {n for n in NAMED if n.startswith("dpo@")} == {"dpo@t0", "dpo@t1"}
    assert next(dep.def_path for dep in NAMED["dpo@t1"].deps) == "models/pi1"


def test_the_reference_is_pi0_in_every_iteration():
    for name in ("reference_offline", "reference@t0", "reference@t1", "dpo_offline", "dpo@t0", "dpo@t1", "measure@t1"):
        assert "models/pi0" in {dep.def_path for dep in NAMED[name].deps}
    assert all("--reference models/pi0 " in NAMED[f"dpo@{t}"].cmd for t in ("t0", "t1"))


def test_an_iteration_can_start_from_pi0_and_refer_to_the_policy_before(clone):
    line = "- {samples: pi1, makes: pi2, start: pi1, reference: pi0, rival: pi0}"
    text = compose("quickstart")
    assert line in text
    (clone / "params.yaml").write_text(
        text.replace(line, line.replace("start: pi1, reference: pi0", "start: pi0, reference: pi1"))
    )
    commands = {name: str(stage.cmd) for name, stage in graph.stages(clone).items()}
    assert (
        "--model models/pi0 --sampled models/pi1 --reference models/pi1 " in commands["dpo@t1"]
        and "--model models/pi1 " in commands["reference@t1"]
    )


def test_a_refreshed_reward_model_learns_from_the_samples_that_it_scores(clone):
    (clone / "params.yaml").write_text(compose("quickstart", settings("refreshed")))
    stages = graph.stages(clone)
    assert "models/refreshed_pi0" in graph.deps(stages["score_refreshed@t0-refreshed"])
    assert "data/annotated/pi1.parquet" in graph.deps(stages["refresh_reward_model@t0-refreshed"])
    assert "data/candidates/pi0" in graph.deps(stages["annotate@t0-refreshed"])
    assert "data/annotated/pi1.parquet" in graph.deps(stages["annotate@t1-refreshed"])  # labels add up


def test_who_judges_itself_is_the_policy_that_was_sampled(clone):
    (clone / "params.yaml").write_text(compose("quickstart", settings("self_judge")))
    stages = graph.stages(clone)
    assert all(f"--model models/pi{k} " in stages[f"score_self_judge@t{k}-self_judge"].cmd for k in (0, 1))


def test_no_stage_imports_a_stage():
    stages = set(fingerprint.stage_modules(ROOT))
    for name in stages:
        files = [path.relative_to(ROOT / "stages") for path in fingerprint.closure(name, ROOT)]
        assert {".".join(file.with_suffix("").parts) for file in files} & stages == {name}


def test_cpu_stages_import_no_torch():
    for name in (
        "data.filter",
        "data.split",
        "data.audit",
        "data.phrases",
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
        "evaluation.examples",
        "evaluation.curve",
        "signals.pairs_as_candidates",
        "evaluation.reward_bench",
        "evaluation.reward_bench_2",
        "signals.scorers.ensemble",
        "signals.scorers.bag_of_words",
        "signals.scorers.longer",
        "evaluation.signal",
        "evaluation.best_of_n",
        "evaluation.signal_report",
        "pairs.history_start",
        "evaluation.select",
        "evaluation.report",
    ):
        assert not {"torch", "transformers", "vllm", "trl"} & set(fingerprint.locked_packages(name, ROOT)), name


@pytest.mark.parametrize(("profile", "last"), [("smoke", "t1"), ("paper", "t2")])
def test_every_profile_draws_its_graph(clone, profile, last):
    """And no command holds two spaces in a row: where dvc.lock folds a line at them one is lost, and the stage would
    count as changed for ever.
    """
    (clone / "params.yaml").write_text(compose(profile))
    drawn = graph.stages(clone)
    assert {f"dpo@{last}", f"generate@{last}", f"evaluate@{last}"} <= set(drawn)
    assert not [name for name, stage in drawn.items() if "  " in stage.cmd]
