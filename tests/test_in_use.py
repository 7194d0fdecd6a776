"""params.yaml with more in use for the time of a run: it is put back, whatever happens."""

import os
import shutil
import signal

import pytest

from stages.tools import in_use
from tests.conftest import ROOT


@pytest.fixture
def text(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return in_use.PARAMS.read_text(encoding="utf-8")


def longer(tree) -> None:
    tree["signals"]["longer"] = ["longer"]


def now() -> str:
    return in_use.PARAMS.read_text(encoding="utf-8")


def test_what_is_in_use_is_in_use_for_the_time_of_the_run_alone(text):
    with in_use.in_use(longer) as params:
        assert params.signals.longer == ["longer"] and now() != text and "# " in now()
    assert now() == text and not in_use.BEFORE.exists()


def test_a_run_that_is_told_to_end_puts_the_params_and_the_signals_handler_back(text):
    before = signal.getsignal(signal.SIGTERM)  # Ray's own, where a test has started it in this process
    with pytest.raises(SystemExit), in_use.in_use(longer):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert now() == text and signal.getsignal(signal.SIGTERM) is before


def test_after_a_kill_the_next_run_puts_them_back_first(text, capsys):
    in_use.BEFORE.parent.mkdir()
    in_use.BEFORE.write_text(text, encoding="utf-8")
    in_use.PARAMS.write_text(text.replace("longer: []", "longer: [longer]"), encoding="utf-8")
    with in_use.in_use(lambda tree: None) as params:
        assert params.signals.longer == []
    assert now() == text and "again what it was before a run that was killed" in capsys.readouterr().out


def test_an_edit_made_during_the_run_stays_and_is_said(text, capsys):
    with in_use.in_use(longer):
        in_use.PARAMS.write_text(now().replace("seed: 1", "seed: 7"), encoding="utf-8")
    assert "seed: 7" in now() and "edited during the run and stays so" in capsys.readouterr().out


def test_an_edit_that_breaks_a_rule_changes_nothing(text):
    with pytest.raises(ValueError, match=r"seed = -1"), in_use.in_use(lambda tree: tree.update(seed=-1)):
        pass
    assert now() == text
