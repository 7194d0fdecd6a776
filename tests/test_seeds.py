"""The claim over seeds: the statistics by hand, and the tool on a pipeline of three stages, with DVC and the guard."""

import json
import os
import signal
import subprocess
import time
from types import SimpleNamespace

import pytest

from stages.evaluation import over_seeds
from stages.tools import seeds
from tests.conftest import FINGERPRINT, sh

GAINS = [1.69, 1.13, 2.04]
OVER_OFFLINE = [0.69, 0.76, 1.29]


def test_mean_error_t_and_p_over_three_seeds_are_those_worked_by_hand():
    """The mean is 4.86 / 3; the squared deviations sum to 0.0049 + 0.2401 + 0.1764 = 0.4214, so the standard error is
    sqrt(0.4214 / 2 / 3) = 0.26502 and t = 1.62 / 0.26502 = 6.1129. With two degrees of freedom p is
    1 - t / sqrt(2 + t^2), and 95 % are 4.30265 standard errors to each side.
    """
    found = over_seeds.tested(GAINS, 0.95)
    assert found == {
        "mean": 1.62,
        "standard_error": 0.265,
        "interval": [0.4797, 2.76],
        "t": 6.113,
        "p": 0.02573,
    }
    t = 1.62 / (0.4214 / 6) ** 0.5
    assert found["p"] == pytest.approx(1 - t / (2 + t * t) ** 0.5, abs=1e-5)


def test_of_two_comparisons_the_smaller_p_counts_twice_and_the_other_no_less():
    """0.02573 twice is 0.05146; 0.04042 alone would be less than that, and may not."""
    each = {"gain": [(v, v - 0.4, v + 0.4) for v in GAINS], "over": [(v, v - 0.7, v + 0.7) for v in OVER_OFFLINE]}
    found = over_seeds.compared(each, 0.95)
    assert [facts["p"] for facts in found.values()] == [0.02573, 0.04042]
    assert [facts["p_holm"] for facts in found.values()] == [0.05146, 0.05146]
    assert [facts["seeds_above_zero"] for facts in found.values()] == [3, 2]
    told = "the claim does not hold (gain: not told apart; over: not told apart)"
    assert over_seeds.claim(found) == told
    assert over_seeds.claim(over_seeds.compared(each, 0.9)) == "the claim holds (gain: higher; over: higher)"


def test_a_loss_is_told_as_one_and_no_spread_is_no_test():
    found = over_seeds.compared({"a": [(-v, 0, 0) for v in GAINS], "b": [(0.5, 0.4, 0.6)] * 3}, 0.9)
    assert found["a"]["verdict"] == "lower" and found["a"]["interval"][1] < 0
    assert found["b"]["verdict"] == "not tested: every seed gave the same number"
    assert (found["b"]["t"], found["b"]["p"], found["b"]["interval"]) == (None, 1.0, [0.5, 0.5])
    assert over_seeds.claim(found).startswith("the claim does not hold")


def test_seeds_follow_the_run_s_own_and_share_no_member_of_an_ensemble():
    params = SimpleNamespace(seed=7, signals=SimpleNamespace(ensemble=[]))
    assert seeds.seeds_of(params, 3) == [7, 8, 9]
    params.signals.ensemble = ["ensemble"]
    assert seeds.seeds_of(params, 3) == [7, 10, 13]


def judged(rate: float, over: float) -> dict:
    """A policy's numbers on the test prompts where a judge compared its answers with pi_0's."""
    bounds = {
        "judge_win_rate_interval": [rate - 0.1, rate + 0.1],
        "judge_over_offline_interval": [over - 0.1, over + 0.1],
    }
    return {"judge_win_rate": rate, "judge_over_offline": over, "kl": 1.0, "tokens": 30.0} | bounds


def test_without_a_gold_reward_the_judge_s_preference_counts_from_one_half():
    policies = {"pi0": judged(0.5, -0.2), "offline": judged(0.7, 0.0), "pi1": judged(0.65, -0.05)}
    row = seeds.row_of(policies, seeds.measure_of(policies))
    assert row == {
        "offline DPO over π0": [0.2, 0.1, 0.3],
        "π1 over π0": [0.15, 0.05, 0.25],
        "π1 over offline DPO": [-0.05, -0.15, 0.05],
        "KL": [1.0],
        "tokens": [30.0],
    }
    with pytest.raises(
        ValueError, match=r"needs a gold reward or a judge, and this run has neither: .* set evaluate\.gold"
    ):
        seeds.measure_of({"pi0": {"proxy_reward": 1.0}})


PREPARE = """
from pathlib import Path

def main(params, source: Path, *, prepared: Path) -> None:
    prepared.write_text("the same for every seed")
"""
EVALUATE = """
import json, os, time
from pathlib import Path

GAINS, OVER = {1: 1.69, 2: 1.13, 3: 2.04}, {1: 0.69, 2: 0.76, 3: 1.29}

def numbers(gain, over):
    bounds = {"gain_interval": [gain - 0.4, gain + 0.4], "over_offline_interval": [over - 0.4, over + 0.4]}
    return {"gold_reward": 3 + gain, "gain": gain, "over_offline": over, "kl": 2.0, "tokens": 33.0, **bounds}

def main(params, prepared: Path, *, pi0: Path, offline: Path, pi1: Path, pi2: Path) -> None:
    seed, home = params.seed, Path(os.environ["STAGE_HOME"])
    if f"{seed}" == os.environ.get("SEED_THAT_FAILS"):
        raise ValueError("loss is nan; lower the learning rate")
    if f"{seed}" == os.environ.get("SEED_THAT_HANGS"):
        (home / "hangs").touch()
        time.sleep(60)
    gain, over = GAINS[seed], OVER[seed]
    for out, found in (pi0, (0.0, -1.0)), (offline, (1.0, 0.0)), (pi1, (gain - 0.5, 0.1)), (pi2, (gain, over)):
        out.write_text(json.dumps({out.stem: {"test": numbers(*found)}}))
"""
PIPELINE = (
    f"stages:\n{FINGERPRINT}"
    + """\
  prepare:
    cmd: python -m stages.guard.run probe.prepare --source README.md --prepared data/prepared.txt
    deps: [README.md]
    params: [code.lock.yaml: [probe_prepare]]
    outs: [data/prepared.txt]
  evaluate:
    cmd: >-
      python -m stages.guard.run probe.evaluate --prepared data/prepared.txt --pi0 metrics/policy/pi0.json
      --offline metrics/policy/offline.json --pi1 metrics/policy/pi1.json --pi2 metrics/policy/pi2.json
    deps: [data/prepared.txt]
    params: [seed, code.lock.yaml: [probe_evaluate]]
    outs:
    - metrics/policy/pi0.json: {cache: false}
    - metrics/policy/offline.json: {cache: false}
    - metrics/policy/pi1.json: {cache: false}
    - metrics/policy/pi2.json: {cache: false}
"""
)
OVER_THREE_SEEDS = """\
| seed | π0 | offline DPO over π0 | π1 over π0 | π2 over π0 | π2 over offline DPO | KL | tokens | stages run |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| 1 | 3.00 | +1.00 [0.60, 1.40] | +1.19 [0.79, 1.59] | +1.69 [1.29, 2.09] | +0.69 [0.29, 1.09] | 2.00 | 33.00 |  |
| 2 | 3.00 | +1.00 [0.60, 1.40] | +0.63 [0.23, 1.03] | +1.13 [0.73, 1.53] | +0.76 [0.36, 1.16] | 2.00 | 33.00 | 1 |
| 3 | 3.00 | +1.00 [0.60, 1.40] | +1.54 [1.14, 1.94] | +2.04 [1.64, 2.44] | +1.29 [0.89, 1.69] | 2.00 | 33.00 | 1 |
| mean | 3.00 | 1.00 | 1.12 | 1.62 | 0.91 | 2.00 | 33.00 |  |
| standard error | 0.00 | 0.00 | 0.27 | 0.27 | 0.19 | 0.00 | 0.00 |  |
"""


@pytest.fixture
def finished(clone):
    """A repository with a finished run of seed 1, committed: a stage that knows no seed, and one that does."""
    (clone / "stages/probe").mkdir()
    for name, text in (("stages/probe/prepare.py", PREPARE), ("stages/probe/evaluate.py", EVALUATE)):
        (clone / name).write_text(text, encoding="utf-8")
    (clone / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    (clone / "dvc.lock").unlink()
    done = sh("dvc repro -q && git add -A && git commit -qm run", clone)
    assert done.returncode == 0, done.stderr
    return clone


def without_minutes(page: str) -> str:
    """The table of seeds without the last column but one."""
    lines = [line.split(" | ") for line in page.split("\n\n")[0].splitlines()]
    return "".join(" | ".join([*cells[:-2], cells[-1]]) + "\n" for cells in lines)


def killed(command: str, folder, marker) -> None:
    """Run a command and end it, and all in its process group, once the marker is there."""
    started = subprocess.Popen(
        command.split(),
        cwd=folder,
        env=os.environ | {"SEED_THAT_HANGS": "3"},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while not marker.exists():
        assert time.monotonic() < end, "the experiment did not begin"
        time.sleep(0.1)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()


@pytest.mark.slow
def test_a_seed_that_fails_is_named_a_kill_loses_nothing_finished_and_nothing_is_run_twice(finished):
    command, table = "python -m stages.tools.seeds --seeds 3", finished / "metrics/seeds.md"
    refused = sh("python -m stages.tools.seeds --seeds 1", finished).stderr
    assert refused.startswith("seeds: --seeds 1: one run has no spread over seeds") and refused.count("\n") == 1

    failed = sh(command, finished, env=os.environ | {"SEED_THAT_FAILS": "3"})
    assert "experiment 2 of 2: seed-3" in failed.stdout and "'prepare' didn't change, skipping" in failed.stdout
    assert "probe.evaluate: loss is nan" in failed.stderr
    assert failed.returncode == 1 and "\nseeds: seed 3 failed; mend what DVC's message above names" in failed.stderr
    page = table.read_text(encoding="utf-8")
    assert "| 3 | failed |" in page and page.endswith("none, since seed 3 failed and is in no number here.\n")

    sh("git add -A && git commit -qm table", finished)  # another HEAD, the same run
    killed(command, finished, finished / ".scratch/hangs")
    done = sh(command, finished)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "experiment 1 of 1: seed-3" in done.stdout and "Running stage 'prepare'" not in done.stdout
    page = table.read_text(encoding="utf-8")
    assert without_minutes(page) == OVER_THREE_SEEDS
    claim = "| π2 over π0 | +1.62 [0.48, 2.76] | 0.27 | 6.11 | 0.026 | 0.051 | 3 of 3 | not told apart |"
    assert claim in page
    assert page.endswith("does not hold (π2 over π0: not told apart; π2 over offline DPO: not told apart).\n")
    assert json.loads((finished / "metrics/seeds.json").read_text())["claim"]["π2 over π0"]["t"] == 6.113

    again = sh(command, finished)
    assert again.returncode == 0 and "experiment" not in again.stdout and table.read_text(encoding="utf-8") == page

    (finished / "params.yaml").write_text((finished / "params.yaml").read_text().replace("seed: 1 ", "seed: 2 "))
    dirty = sh(command, finished).stderr
    assert dirty.startswith("seeds: the workspace has uncommitted changes, which every experiment would carry;")
    stale = sh(f"git commit -qam seed && {command}", finished).stderr
    assert stale.startswith("seeds: the run at hand is out of date (evaluate would run); run `dvc ")
