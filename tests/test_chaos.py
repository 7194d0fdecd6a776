"""A run that is killed again and again ends as if nothing had happened: a part of tests/trust/chaos.py (`make chaos`
kills thirty times).
"""

import random
import re
import shutil
import signal

import pytest

from tests.conftest import sh
from tests.trust import chaos

pytestmark = pytest.mark.slow
KILLS = [("youngest", signal.SIGKILL), ("dvc", signal.SIGTERM), ("commit", signal.SIGKILL)]

AGAIN = {
    *("prompts", "split", "audit", "demonstrations", "select", "signal_reward_model@reward_model", "report"),
    *("evaluate_first@pi0", "evaluate_first@offline", "evaluate@t0", "evaluate@t1"),
}
"""Stages of seconds, of which git keeps an output and the run-cache nothing."""


def test_three_kills_on_the_way_to_the_first_pairs_change_nothing(smoke, tmp_path):
    """In another folder than the undisturbed run, with another hash seed, locale, time zone and umask, no compiler."""
    folder, known = chaos.fresh(tmp_path / "clone"), set()
    shutil.copy(smoke / "params.yaml", folder / "params.yaml")
    random.seed(4)
    for kind, sign in KILLS:
        _, twice, ended = chaos.kill_once(folder, known, kind, sign, random.uniform(5, 20), "rank@t0")
        assert not twice and not ended
    chaos.finish(folder, "rank@t0")
    calm, survived = chaos.recorded(smoke), chaos.recorded(folder)
    assert "rank@t0" in survived and survived == {name: calm[name] for name in survived}
    assert "up to date" in sh("dvc status rank@t0", folder).stdout


@pytest.mark.parametrize(
    ("name", "says", "remedy", "run_again"),
    [
        (".dvc/tmp/rwlock", "Unable to read RWLock-file '.dvc/tmp/rwlock'", "rm .dvc/tmp/rwlock", set()),
        ("dvc.lock", "'./dvc.lock' validation failed", "git checkout dvc.lock", AGAIN),
    ],
)
def test_a_file_that_dvc_was_writing_when_it_died_is_mended_and_costs_no_dear_computation(
    own_smoke, name, says, remedy, run_again
):
    before, whole = chaos.recorded(own_smoke), (own_smoke / name).read_text(encoding="utf-8")
    cut = max(0, whole.rfind("ath: "))  # in the middle of the last `path:`; nothing is left where there is none
    (own_smoke / name).write_text(whole[:cut], encoding="utf-8")
    assert says in sh("dvc --wait-for-lock repro", own_smoke).stderr
    assert sh(remedy, own_smoke).returncode == 0
    known = chaos.recorded(own_smoke)  # git's lock is the quickstart's
    done = sh("dvc --wait-for-lock repro", own_smoke)
    assert done.returncode == 0, done.stderr[-2000:]
    ran = re.findall("Running stage '(.+)'", done.stdout)
    assert set(ran) - {"fingerprint"} == run_again and chaos.recorded(own_smoke) == known | before
