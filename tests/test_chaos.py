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
KILLS = [("youngest", signal.SIGKILL), ("dvc", signal.SIGTERM), ("guard", signal.SIGKILL), ("commit", signal.SIGKILL)]


def test_four_kills_on_the_way_to_the_first_policy_change_nothing(smoke, tmp_path):
    """In another folder than the undisturbed run, with another hash seed, locale, time zone and umask."""
    folder, known = chaos.fresh(tmp_path / "clone"), set()
    shutil.copy(smoke / "params.yaml", folder / "params.yaml")
    random.seed(4)
    for kind, sign in KILLS:
        _, twice, ended = chaos.kill_once(folder, known, kind, sign, random.uniform(5, 30), "dpo@t0")
        assert not twice and not ended
    chaos.finish(folder, "dpo@t0")
    calm, survived = chaos.recorded(smoke), chaos.recorded(folder)
    assert "dpo@t0" in survived and survived == {name: calm[name] for name in survived}
    assert "up to date" in sh("dvc status dpo@t0", folder).stdout


@pytest.mark.parametrize(
    ("name", "says", "remedy", "run_again"),
    [
        (".dvc/tmp/rwlock", "Unable to read RWLock-file '.dvc/tmp/rwlock'", "rm .dvc/tmp/rwlock", []),
        (
            "dvc.lock",
            "'./dvc.lock' validation failed",
            "git checkout dvc.lock",
            ["report"],
        ),  # all it writes is kept by git, not in the cache
    ],
)
def test_a_file_that_dvc_was_writing_when_it_died_is_mended_and_costs_no_computation(
    own_smoke, name, says, remedy, run_again
):
    before, whole = chaos.recorded(own_smoke), (own_smoke / name).read_text()
    (own_smoke / name).write_text(
        whole[: max(0, whole.rfind("ath: "))]
    )  # up to the middle of its last `path:`; nothing where it has none
    assert says in sh("dvc --wait-for-lock repro", own_smoke).stderr
    done = sh(f"{remedy} && dvc --wait-for-lock repro", own_smoke)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.findall("Running stage '(.+)'", done.stdout) == run_again and chaos.recorded(own_smoke) == before
