"""What policy optimisation can be asked for, on the smoke profile: real DVC, vLLM and training, a tiny random model."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import KEYS, distance, family, guard, sh, wait_for

pytestmark = pytest.mark.slow
REFRESHED = ("rank.scorer=refreshed", "signals.refreshed=[refreshed]")


def profile(folder, *settings):
    done = sh(f"python -m stages.tools.profile smoke {' '.join(settings)}", folder)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def run(own_smoke):
    """A function that sets params and reproduces."""

    def reproduce(target, *settings):
        profile(own_smoke, *settings)
        return sh(f"dvc --wait-for-lock repro {target}", own_smoke)

    return reproduce


def ran(done) -> list[str]:
    return [
        line.rpartition(":")[0].split("'")[1].rpartition(":")[2]
        for line in done.stdout.splitlines()
        if line.startswith("Running stage")
    ]


def after_half(shelf: Path) -> Iterator[bool]:
    """Of every whole checkpoint, whether it stands behind the first 21 of 42 steps."""
    return (int(file.parent.name.rpartition("-")[2]) > 21 for file in shelf.glob("*/checkpoint-*/complete.json"))


def test_training_that_was_killed_goes_on_from_its_own_checkpoint_and_ends_with_the_same_weights(own_smoke):
    """On two processes of DeepSpeed; on one, tests/test_models.py."""
    profile(
        own_smoke,
        "dpo.global_batch_rows=2",
        "dpo.epochs=14",
        "dpo.half=true",
        "runtime.micro_batch_rows=1",
        "runtime.checkpoint_minutes=0.0",
        "runtime.processes=2",
        "runtime.deepspeed=2",
    )
    often = own_smoke / "stages/training/checkpoints.py"  # at 5 % of the time none may fall into a half of some seconds
    assert "SHARE = 0.05" in often.read_text()
    often.write_text(often.read_text().replace("SHARE = 0.05", "SHARE = 1.0"))
    assert guard(own_smoke, *KEYS).returncode == 0
    reads = "--model models/pi0 --sampled models/pi0 --reference models/pi0 --history data/history/pi1.parquet"
    train = f"python -m stages.guard.run training.dpo {reads}"
    command = [
        f"{train} --policy .scratch/{name} --curve .scratch/{name}.csv --metrics .scratch/{name}.json"
        for name in ("whole", "killed")
    ]
    assert sh(command[0], own_smoke).returncode == 0
    first = subprocess.Popen(command[1].split(), cwd=own_smoke, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoints = own_smoke / ".scratch/training/.scratch%killed"
    wait_for(lambda: any(after_half(checkpoints)), seconds=120)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    wait_for(lambda: not family(own_smoke), seconds=20)
    assert list(checkpoints.glob("*/checkpoint-*")) and not (own_smoke / ".scratch/killed").exists()
    done = sh(command[1], own_smoke)
    assert re.search(r"going on after step (2[2-9]|[34]\d),", done.stdout), done.stderr[-2000:]
    for name in ("{}/model.safetensors", "{}/half/model.safetensors", "{}.csv", "{}.json"):
        assert (own_smoke / ".scratch" / name.format("whole")).read_bytes() == (
            own_smoke / ".scratch" / name.format("killed")
        ).read_bytes()
    assert not checkpoints.exists()


def test_a_stop_rule_ends_the_run_with_its_reason_and_keeps_the_policy_that_broke_it(own_smoke, run):
    profile(own_smoke, "stop.max_kl=1.0e-4")
    params = (own_smoke / "params.yaml").read_text()
    (own_smoke / "params.yaml").write_text(params.replace("makes: pi2, start: pi1", "makes: pi2, start: pi0"))
    done = sh("dvc --wait-for-lock repro", own_smoke)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (json.loads((own_smoke / f"data/stop/{p}.json").read_text()) for p in ("pi0", "pi1"))
    assert (
        not first["stop"] and second["stop"] and re.fullmatch(r"kl \S+ is over stop.max_kl = 0.0001", second["reason"])
    )
    weights = [(own_smoke / f"models/{name}/model.safetensors").read_bytes() for name in ("pi0", "pi1", "pi2")]
    assert weights[0] != weights[1] == weights[2]  # though training would have started from pi0
    assert (
        json.loads((own_smoke / "data/rank/pi1.json").read_text())["rows_in"] == 0
        and (own_smoke / "metrics/table.md").read_text().count("\n") == 6
    )
    assert f"Stopped before π2: {second['reason']}." in (own_smoke / "metrics/report.html").read_text()
    chosen = json.loads((own_smoke / "metrics/selected.json").read_text())
    assert chosen["policy"] == "pi0" and chosen["ruled_out"] == {"pi1": second["reason"], "pi2": second["reason"]}


def test_a_policy_that_breaks_a_rule_before_the_first_iteration_is_dealt_no_prompts(own_smoke, run):
    done = run("batch@t0", "stop.max_tokens=5.0")
    assert done.returncode == 0, done.stderr[-2000:]
    verdict = json.loads((own_smoke / "data/stop/pi0.json").read_text())
    assert verdict["stop"] and verdict["reason"] == "tokens 12.0 is over stop.max_tokens = 5.0"
    assert pq.read_metadata(own_smoke / "data/prompts/pi0.parquet").num_rows == 0


def test_pairs_go_to_people_and_come_back_with_checks(own_smoke, run):
    asked = run("annotate@t0-refreshed", *REFRESHED, "annotate.by=people", "annotate.pairs=3")
    todo = "fill in `choice` (A, B, tie, skip) in .scratch/labels/pi0.jsonl, save it as data/raw/labels/pi0.jsonl"
    told = f"annotate: 3 pairs wait for labels: {todo}"
    assert told in again(own_smoke, "annotate@t0-refreshed").stderr and asked.returncode
    lines = [json.loads(line) for line in (own_smoke / ".scratch/labels/pi0.jsonl").read_text().splitlines()]
    answer = own_smoke / "data/raw/labels/pi0.jsonl"
    answer.write_text(
        "".join(
            json.dumps(line | {"choice": choice}) + "\n"
            for line, choice in zip(lines, ("A", "tie", "maybe"), strict=True)
        )
    )
    assert (
        "data/raw/labels/pi0.jsonl:3: choice = 'maybe' must be one of A, B, tie, skip"
        in again(own_smoke, "annotate@t0-refreshed").stderr
    )
    answer.write_text(
        "".join(
            json.dumps(line | {"choice": choice}) + "\n" for line, choice in zip(lines, ("A", "tie", "B"), strict=True)
        )
    )
    done = again(own_smoke, "annotate@t0-refreshed")
    assert done.returncode == 0, done.stderr[-2000:]
    facts = json.loads((own_smoke / "data/annotate/pi0.json").read_text())
    assert (facts["rows_in"], facts["rows_out"]) == (6, 2)
    assert facts["drops"] == {"no_two_different": 0, "over_budget": 3, "tie": 1, "skip": 0}
    new = pq.read_table(own_smoke / "data/annotated/pi1.parquet").to_pylist()[-2:]
    assert [row["chosen"][0]["content"] for row in new] == [lines[0]["A"], lines[2]["B"]]


def again(folder, target):
    return sh(f"dvc --wait-for-lock repro {target}", folder)


def test_the_policy_judges_itself_and_is_paired_with_its_rival_which_may_be_a_half_trained_one(own_smoke):
    across = ["generate.from_rival=2", "rank.pairing=across", "runtime.judge_connections=1"]
    profile(own_smoke, "rank.scorer=self_judge", "signals.self_judge=[self_judge]", "dpo.half=true", *across)
    params = (own_smoke / "params.yaml").read_text()
    (own_smoke / "params.yaml").write_text(
        params.replace("start: pi1, reference: pi0, rival: pi0", "start: pi1, reference: pi0, rival: pi1/half")
    )
    done = again(own_smoke, "generate@t1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"score_self_judge@t0-self_judge", "rank@t0"} <= set(ran(done))
    assert "--rival models/base" in done.stdout and "--rival models/pi1/half" in done.stdout
    facts = json.loads((own_smoke / "data/rank/pi0.json").read_text())
    assert facts["candidates"] == 24 and facts["rows_in"] == facts["prompts"] == 6
    drawn = pq.read_table(own_smoke / "data/candidates/pi0").to_pylist()
    assert [row["temperature"] for row in drawn[:4]] == [1.0, 0.7, 1.0, 0.7]

    weights = own_smoke / "models/pi1/half/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    reads = "--policy models/pi0 --rival models/pi1/half --prompts data/prompts/pi1.parquet --iteration pi1"
    told = sh(f"python -m stages.guard.run sampling.generate {reads} --candidates .scratch/drawn", own_smoke).stderr
    assert told.startswith(
        "sampling.generate: models/pi1/half/model.safetensors is damaged or edited: models/pi1 has md5 "
    ), told


def test_the_reward_model_is_refreshed_with_labels_on_the_policys_own_samples(own_smoke, run):
    done = run("rank@t1", *REFRESHED, "annotate.pairs=4")
    assert done.returncode == 0, done.stderr[-2000:]
    names = ran(done)
    assert [
        names.count(f"{stage}-refreshed")
        for stage in (
            "annotate@t0",
            "refresh_reward_model@t0",
            "annotate@t1",
            "refresh_reward_model@t1",
            "score_refreshed@t1",
        )
    ] == [1] * 5
    before, first, second = (
        pq.read_metadata(own_smoke / f"data/annotated/{name}.parquet").num_rows for name in ("pi0", "pi1", "pi2")
    )
    assert (first - before, second - first) == (4, 4)


def test_a_judge_compares_every_policy_with_pi0_where_there_is_no_gold_reward(own_smoke, run):
    done = run(
        "report", "evaluate.gold=none", "evaluate.reads=judged_by", "evaluate.judge=[judge]", "select.by=judge_win_rate"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert {
        "judge_first@pi0-judge",
        "judge_first@offline-judge",
        "judge@t0-judge",
        "judge@t1-judge",
        "evaluate@t1",
        "select",
        "report",
    } <= set(ran(done))
    facts = {
        name: json.loads((own_smoke / f"metrics/policy/{name}.json").read_text())[name]
        for name in ("pi0", "pi1", "pi2")
    }
    assert (
        facts["pi0"]["test"]["judge_win_rate"] == facts["pi0"]["validation"]["judge_win_rate"] == 0.5
        and "gain" not in facts["pi0"]["test"]
    )
    low, high = facts["pi2"]["test"]["judge_win_rate_interval"]
    assert low <= facts["pi2"]["test"]["judge_win_rate"] <= high
    chosen = json.loads((own_smoke / "metrics/selected.json").read_text())
    assert chosen["validation"] == {name: facts[name]["validation"]["judge_win_rate"] for name in ("pi1", "pi2")}
    assert "judge prefers it to π0" in (own_smoke / "metrics/report.html").read_text()


def test_the_offline_baseline_can_have_a_set_of_its_own(own_smoke, run):
    raw, rest = "data/raw/quickstart/annotations.jsonl", "rule: {}, filter: {min_margin: 3, rows: 0}"
    own = f"'offline.set={{own: {{source: quickstart, raw: {raw}, {rest}}}}}'"
    done = run("offline", "offline.train=data/offline/mixed.parquet", own)
    assert done.returncode == 0, done.stderr[-2000:]
    assert ran(done) == ["prepare_offline@own", "filter_offline@own", "offline"]
    account = json.loads((own_smoke / "data/offline/account.json").read_text())["own"]
    assert account["rows_in"] == account["rows_out"] + sum(account["drops"].values()) > account["rows_out"] > 0


def test_an_adapter_is_trained_kept_and_merged_into_a_policy_that_vllm_samples_from(own_smoke, run):
    from safetensors.torch import load_file

    done = run("respond@t0", "dpo.lora_rank=4")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (own_smoke / "models/pi1/adapter/adapter_model.safetensors").exists()
    merged = sh("python -m stages.tools.merge models/pi0 models/pi1/adapter merged", own_smoke)
    assert merged.returncode == 0, merged.stderr
    assert (own_smoke / "merged/model.safetensors").read_bytes() == (
        own_smoke / "models/pi1/model.safetensors"
    ).read_bytes()
    wrong = sh("python -m stages.tools.merge models/base models/pi1/adapter .scratch/other", own_smoke).stderr
    assert (
        wrong.startswith("merge: models/pi1/adapter was trained on models/pi0 with digest ") and wrong.count("\n") == 1
    )
    two = "runtime.processes=2", "runtime.deepspeed=3", "runtime.micro_batch_rows=1", "dpo.lora_rank=4"
    profile(own_smoke, *two)
    reads = "--model models/pi0 --sampled models/pi0 --reference models/pi0 --history data/history/pi1.parquet"
    writes = "--policy .scratch/two --curve .scratch/two.csv --metrics .scratch/two.json"
    done = sh(f"python -m stages.guard.run training.dpo {reads} {writes}", own_smoke)
    assert done.returncode == 0, done.stderr[-3000:]
    start, one, two = (
        load_file(own_smoke / name / "model.safetensors") for name in ("models/pi0", "models/pi1", ".scratch/two")
    )
    assert one.keys() == two.keys() and 0 < distance(one, two) < 0.02 * distance(one, start)


def test_the_ablations_run_as_experiments_and_fill_one_table(own_smoke):
    assert (
        "ablations: the workspace has uncommitted changes"
        in sh("python -m stages.tools.ablations start-pi0", own_smoke).stderr
    )
    assert (
        "ablations: 'gamma' is none of length-penalty, "
        in sh("python -m stages.tools.ablations gamma", own_smoke).stderr
    )
    sh("git add -A && git commit -qm smoke", own_smoke)
    done = sh("python -m stages.tools.ablations start-pi0", own_smoke)
    again = sh("python -m stages.tools.ablations start-pi0", own_smoke)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = (own_smoke / "metrics/ablations.md").read_text().splitlines()
    assert (
        len(lines) == 4
        and lines[3].startswith("| `-S iterations.1.start=pi0` | ")
        and 1 < int(lines[3].split("|")[-2]) <= 8
    ), lines
    assert "Running stage 'dpo@t1'" in done.stdout + done.stderr and "Running stage" not in again.stdout + again.stderr
