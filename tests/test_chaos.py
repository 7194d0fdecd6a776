"""A run that is killed again and again ends as if nothing had happened: a part of tests/trust/chaos.py (`make chaos` kills thirty times)."""

import random
import shutil
import signal

import pytest

from stages import integrity
from tests.conftest import copy_tree, sh
from tests.trust import chaos

pytestmark = pytest.mark.slow
KILLS = [("youngest", signal.SIGKILL), ("dvc", signal.SIGTERM), ("guard", signal.SIGKILL), ("commit", signal.SIGKILL)]


def test_four_kills_on_the_way_to_the_first_policy_change_nothing(smoke, tmp_path):
    """In another folder than the undisturbed run, with another hash seed, locale, time zone and umask."""
    folder = copy_tree(tmp_path / "clone")
    shutil.copy(smoke / "params.yaml", folder / "params.yaml")
    for name in integrity.LOCKS:
        (folder / name).unlink(missing_ok=True)
    random.seed(4)
    for kind, sign in KILLS:
        _, twice, ended = chaos.kill_once(folder, kind, sign, random.uniform(5, 30), "dpo@t0")
        assert not twice and not ended
    chaos.finish(folder, "dpo@t0")
    calm, survived = chaos.recorded(smoke), chaos.recorded(folder)
    assert "dpo@t0" in survived and survived == {name: calm[name] for name in survived}
    assert "up to date" in sh("dvc status dpo@t0", folder).stdout
