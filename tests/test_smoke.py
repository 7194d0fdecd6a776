"""The whole pipeline on the smoke profile: real DVC, real vLLM, real training, a tiny random model."""

import hashlib
import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import family, sh, wait_for
from tests.pages import loaded

pytestmark = pytest.mark.slow
SIGNALS = ["reward model", "preference model", "judge", "ensemble", "implicit", "bag of words", "longer"]


def test_it_ends_with_a_table_of_every_policy(smoke):
    table = (smoke / "metrics/table.md").read_text()
    assert table.count("\n") == 2 + 4 and "π2" in table
    assert loaded((smoke / "metrics/report.html").read_text()) == []


def test_a_second_repro_runs_nothing_and_status_is_clean(smoke):
    sh("rm -rf .scratch/rows", smoke)  # nothing needs it: chunks go when the stage is done
    again = sh("dvc --wait-for-lock repro", smoke)
    assert "Running stage" not in again.stdout and "up to date" in again.stdout
    assert "up to date" in sh("dvc status", smoke).stdout


def test_the_divergence_of_pi0_from_itself_is_nothing_and_what_is_sampled_is_the_policy(smoke):
    """vLLM's log-probabilities and the forward pass's agree, on the very tokens that were sampled."""
    seen = {n: json.loads((smoke / f"metrics/policy/{n}.json").read_text())[n]["test"] for n in ("pi0", "pi1", "pi2")}
    assert seen["pi0"]["kl"] == 0.0 != seen["pi2"]["kl"]
    assert all(abs(each["sampler_kl"]) < 0.01 for each in seen.values())


def test_every_row_is_accounted_for(smoke):
    files = ["data/preferences/quickstart", "data/mixed/quickstart", "metrics/demonstrations", "metrics/prompts"]
    files += ["data/sft/pi0", "data/reward_model/reward", "data/rank/pi0", "data/rank/pi1", "data/dpo/offline"]
    facts = [json.loads((smoke / f"{name}.json").read_text()) for name in files]
    for rows in (
        rows for told in facts for rows in (told, *told.values()) if isinstance(rows, dict) and "rows_in" in rows
    ):
        assert rows["rows_in"] == rows["rows_out"] + sum(rows["drops"].values()) > 0


def test_the_demonstrations_are_the_chosen_side_of_its_pairs(smoke):
    import polars as pl

    pairs, rows = (pl.read_parquet(smoke / f"data/{name}.parquet") for name in ("filtered/train", "demonstrations"))
    assert rows.select("prompt", "chosen", "chosen_finished").equals(
        pairs.select("prompt", "chosen", "chosen_finished")
    )


def test_no_prompt_of_evaluation_is_trained_on(smoke):
    import pyarrow.parquet as pq

    def texts(*names):
        return {
            str(p)
            for name in names
            for p in pq.read_table(smoke / f"data/{name}.parquet", columns=["prompt"])["prompt"].to_pylist()
        }

    trained = texts("filtered/train", "filtered/heldout", "history/pi0", "history/pi1", "history/pi2")
    assert not trained & texts("prompts/test", "prompts/validation")
    assert not texts("prompts/pi0") & texts("prompts/pi1")


def test_a_beta_reruns_training_and_no_sampling_of_the_first_iteration(own_smoke):
    assert sh("python -m stages.tools.profile smoke dpo.beta=0.3", own_smoke).returncode == 0
    status = json.loads(sh("dvc status --json", own_smoke).stdout)
    assert {name for name in status if status[name]} == {
        "dpo_offline",
        "dpo@t0",
        "dpo@t1",
        "report",
    }  # it names the numbers


def test_with_links_for_copies_nothing_lies_twice_and_no_stage_writes_into_the_cache(own_smoke):
    done = sh("dvc config --local cache.type reflink,hardlink,symlink,copy && dvc checkout --relink", own_smoke)
    assert done.returncode == 0, done.stderr
    weights = own_smoke / "models/pi2/model.safetensors"
    assert weights.stat().st_nlink == 2
    assert sh("python -m stages.tools.profile smoke evaluate.resamples=300", own_smoke).returncode == 0
    ran = sh("dvc --wait-for-lock repro", own_smoke)
    assert ran.returncode == 0 and "Running stage 'evaluate@t1'" in ran.stdout, ran.stderr
    assert "up to date" in sh("dvc status", own_smoke).stdout
    objects = [path for path in (own_smoke / ".dvc/cache/files/md5").rglob("*") if path.is_file()]
    for path in objects:
        name = (path.parent.name + path.name).removesuffix(".dir")
        assert hashlib.md5(path.read_bytes()).hexdigest() == name


def test_a_comment_reruns_the_fingerprint_alone(own_smoke):
    path = own_smoke / "stages/sampling/generate.py"
    path.write_text(path.read_text() + "# a remark\n")
    ran = sh("dvc --wait-for-lock repro", own_smoke).stdout
    assert [line for line in ran.splitlines() if line.startswith("Running stage")] == ["Running stage 'fingerprint':"]


def test_all_signals_are_measured_side_by_side_and_switching_to_one_of_them_scores_nothing_again(own_smoke):
    done = sh("python -m stages.tools.signals", own_smoke)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    table = (own_smoke / "metrics/signals.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in table[2:]] == SIGNALS
    assert "<svg" in (own_smoke / "metrics/signals.html").read_text()
    facts = {
        name: json.loads((own_smoke / f"metrics/signals/{name.replace(' ', '_')}.json").read_text()) for name in SIGNALS
    }
    pairs = facts["longer"]["heldout"]["labels"]["pairs"]
    assert all(fact["heldout"]["labels"]["pairs"] + fact["unscored"] == pairs for fact in facts.values())
    assert (
        facts["judge"]["unscored"] > 0 == facts["reward model"]["unscored"]
    )  # comparisons that are longer than the tiny model's context
    assert facts["judge"]["verdicts"]["unreadable"] >= facts["judge"]["unscored"]

    sh("python -m stages.tools.profile smoke rank.scorer=judge signals.judge=[judge]", own_smoke)
    ran = sh("dvc --wait-for-lock repro rank@t0", own_smoke)
    assert [line for line in ran.stdout.splitlines() if line.startswith("Running stage")] == [
        "Running stage 'rank@t0':"
    ], ran.stderr
    assert json.loads((own_smoke / "data/rank/pi0.json").read_text())["candidates"] == 24


def test_the_runs_own_reward_model_can_be_rated_on_any_judged_pairs(own_smoke):
    command, folder = (
        "python -m stages.tools.rate models/reward data/raw/reward_bench",
        own_smoke / "data/raw/reward_bench",
    )
    assert (
        "rate: data/raw/reward_bench: holds no judged pairs; put RewardBench's files there"
        in sh(command, own_smoke).stderr
    )
    (folder / "mine.jsonl").write_text('{"prompt": "q", "chosen": "yes", "rejected": "no"}\n')
    done = sh(command, own_smoke)
    assert "| mine | 1 |" in done.stdout, done.stderr


def test_models_hold_what_loaders_read_and_nothing_else(smoke):
    for name in ("base", "pi0", "offline", "pi1", "pi2", "reward"):
        files = {path.name for path in (smoke / "models" / name).iterdir()}
        assert "model.safetensors" in files and "tokenizer.json" in files
        assert not [f for f in files if f.endswith((".bin", ".pt", ".pkl", ".md"))], files


def test_verify_proves_a_whole_run_and_finds_a_number_that_was_touched_up(own_smoke):
    lie = own_smoke
    done = sh("python -m stages.tools.verify", lie)
    assert done.returncode == 0, done.stderr
    assert (
        "computed again to the byte" in done.stdout
        and "not verified: that sampling.generate, sampling.respond" in done.stdout
    )
    path = lie / "metrics/policy/pi2.json"
    text = path.read_text()
    path.write_text(text.replace('"prompts": 6', '"prompts": 7', 1))
    assert path.read_text() != text
    assert "verify: dvc status: " in sh("python -m stages.tools.verify", lie).stderr
    sh("dvc commit -f evaluate@t1", lie)  # a liar who knows DVC
    sh("dvc --wait-for-lock repro", lie)
    found = sh("python -m stages.tools.verify", lie)
    assert (
        found.returncode == 1
        and "metrics/policy/pi2.json: `evaluation.evaluate` computed from the same inputs gives other bytes"
        in found.stderr
    )


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("dvc metrics show metrics/selected.json metrics/signals/reward_model.json", "heldout.labels.accuracy"),
        ("dvc metrics diff --targets metrics/policy/pi2.json", ""),
        ("dvc metrics diff", ""),
        ("dvc metrics show", "metrics/summary.json"),
        ("dvc exp show", "workspace"),
        ("dvc exp show --only-changed --drop '.*/'", ""),
        ("dvc params diff", ""),
        ("dvc plots show", "index.html"),
        ("dvc dag --collapse-foreach-matrix reward_model", "reward_model"),
        ("dvc dag --collapse-foreach-matrix --md reward_model", '["reward_model"]'),
        ("dvc exp list", ""),
    ],
)
def test_dvc_as_its_users_know_it(smoke, command, told):
    done = sh(command, smoke)
    assert done.returncode == 0 and told in done.stdout, done.stderr


def test_an_edited_row_is_seen_although_the_number_of_rows_stays(own_smoke):
    path = own_smoke / "data/raw/quickstart/annotations.jsonl"
    path.write_text(path.read_text().replace('"choice": "A"', '"choice": "B"', 1))
    status = json.loads(sh("dvc status --json", own_smoke).stdout)
    assert status["prepare@quickstart"]


def test_a_run_killed_in_the_middle_of_sampling_ends_with_the_same_bytes_by_two_workers_too(own_smoke):
    out = own_smoke / "data/candidates/pi0/shard-00000.parquet"
    whole = out.read_bytes()
    reads = "--policy models/pi0 --rival models/base --prompts data/prompts/pi0.parquet --iteration pi0"
    words = f"-m stages.guard.run sampling.generate {reads} --candidates data/candidates/pi0"
    command = ["python", *words.split()]
    run = subprocess.Popen(command, cwd=own_smoke, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert run.stderr is not None
    said = b""
    while b"/24 [" not in said:  # the bar appears when sampling begins
        said += run.stderr.read(1)
        assert run.poll() is None, said
    run.kill()
    run.wait()
    assert out.read_bytes() == whole
    assert sh("python -m stages.tools.profile smoke runtime.workers=2", own_smoke).returncode == 0
    out.unlink()
    run = subprocess.Popen(command, cwd=own_smoke, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(lambda: run.poll() is not None or any("ray::" in name for name in family(own_smoke)), seconds=120)
    assert run.poll() is None
    run.kill()
    run.wait()
    wait_for(lambda: not family(own_smoke), seconds=20)
    assert not out.exists()
    done = sh(" ".join(command), own_smoke)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == whole and "up to date" in sh("dvc status", own_smoke).stdout


def test_the_best_checkpoint_is_found_by_two_processes_of_deepspeed_too(own_smoke):
    layout = "runtime.processes=2 runtime.deepspeed=3 runtime.micro_batch_rows=2"
    assert sh(f"python -m stages.tools.profile smoke {layout}", own_smoke).returncode == 0
    assert "up to date" in sh("dvc status", own_smoke).stdout  # `runtime` is layout
    reads = "--model models/base --train data/filtered/train.parquet --member 0"
    writes = "--reward .scratch/reward --curve .scratch/reward.csv --metrics .scratch/reward.json"
    done = sh(f"python -m stages.guard.run training.reward_model {reads} {writes}", own_smoke)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "best validation loss" in done.stdout and not list((own_smoke / ".scratch").rglob("*checkpoint*"))
    words = "--reward .scratch/reward --candidates data/candidates/judged --scores .scratch/s"
    rated = sh(f"python -m stages.guard.run signals.scorers.reward_model {words}", own_smoke)
    assert rated.returncode == 0, rated.stderr[-3000:]


def least_free_while(command: str, folder: Path) -> int:
    """Bytes of the GPU's memory that are free when least are, while a command runs, whoever takes the others."""
    import torch

    free, log = [torch.cuda.mem_get_info()[0]], folder / ".scratch/log"
    with log.open("w", encoding="utf-8") as out:
        run = subprocess.Popen(command, shell=True, cwd=folder, stdout=out, stderr=out)
        while run.poll() is None:
            free.append(torch.cuda.mem_get_info()[0])
            time.sleep(0.02)
    assert run.returncode == 0, log.read_text(encoding="utf-8")[-3000:]
    return min(free)


@pytest.mark.gpu
@pytest.mark.skipif("not __import__('torch').cuda.is_available()", reason="needs a CUDA device")
@pytest.mark.parametrize(
    "stage", ["sft", "reward_model@reward_model", "reference@t0", "dpo@t0", "respond@t0", "measure@t0"]
)
def test_on_a_machine_with_a_gpu_a_stage_computes_on_it(own_smoke, stage):
    """A CUDA context alone takes hundreds of MiB of the device; a stage on the CPU takes nothing."""
    import torch
    from dvc.repo import Repo

    command = next(found.cmd for found in Repo(str(own_smoke)).index.stages if found.addressing.endswith(f":{stage}"))
    before = torch.cuda.mem_get_info()[0]
    assert before - least_free_while(str(command), own_smoke) > 100 * 2**20
