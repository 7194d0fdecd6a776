"""A stage's key changes when, and only when, what its code says changes."""

from pathlib import Path

import pytest

from stages.guard import fingerprint

ROOT = Path(__file__).resolve().parent.parent


def keys(folder: Path) -> dict[str, str]:
    fingerprint.imports.cache_clear()
    fingerprint.lock.cache_clear()
    return {name: fingerprint.key(name, folder) for name in fingerprint.stage_modules(folder)}


def changed(folder: Path, file: str, old: str, new: str) -> set[str]:
    before = keys(folder)
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    after = keys(folder)
    return {name for name in before if before[name] != after[name]}


def test_the_committed_keys_are_those_of_the_code():
    assert fingerprint.read(ROOT / "code.lock.yaml") == {
        name.replace(".", "_"): key for name, key in keys(ROOT).items()
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("DROPS = [", "# a comment\nDROPS = ["),
        ('"""What the pairs are like', '"""How the pairs are'),
        ("import json\n", "import json\n\n\n"),
        ("    return rows, drops\n", "    return rows, drops  # both\n"),
    ],
)
def test_comments_docstrings_and_blank_lines_change_no_key(clone, old, new):
    assert changed(clone, "stages/pairs/rank.py", old, new) == set()


def test_an_edit_changes_the_key_of_that_stage_alone(clone):
    assert changed(clone, "stages/pairs/rank.py", "max(winners", "min(winners") == {"pairs.rank"}


FORWARD = {f"signals.scorers.{name}" for name in ("reward_model", "preference_model", "judge", "implicit")}


def test_an_edit_of_an_imported_module_changes_exactly_its_importers(clone):
    assert changed(clone, "stages/sampling/engine.py", ">> 1", ">> 2") == {"sampling.generate", "sampling.respond"}
    assert (
        changed(clone, "stages/signals/forward.py", "yield batch", "yield list(batch)")
        == {"training.reference", "signals.measure", "signals.judge"} | FORWARD
    )


def test_a_prompt_template_belongs_to_the_stage_that_reads_it(clone):
    assert changed(clone, "stages/training/chatml.jinja", "assistant", "helper") == {"training.base"}
    assert changed(clone, "stages/signals/annotator_topics.json", "honey", "money") == {
        "evaluation.evaluate",
        "evaluation.signal",
        "evaluation.best_of_n",
        "signals.annotate",
    }


def test_a_new_trl_reruns_training_and_not_sampling(clone):
    assert changed(clone, "requirements.lock", "\ntrl==", "\ntrl==9") == {
        "training.sft",
        "training.reward_model",
        "training.preference_model",
        "training.dpo",
    }
    assert changed(clone, "requirements.lock", "\nvllm==", "\nvllm==9") == {"sampling.generate", "sampling.respond"}


def test_the_guard_the_loader_and_the_profiles_are_in_no_key(clone):
    assert changed(clone, "stages/guard/run.py", "LOCKS = ", "LOCKS2 = ") == set()
    assert changed(clone, "stages/guard/params.py", "Share = ", "Share2 = ") == set()


@pytest.mark.parametrize("line", ["from . import chat\n", "import importlib\nimportlib.import_module('stages.chat')\n"])
def test_an_import_that_cannot_be_followed_is_refused(clone, line):
    (clone / "stages/probe.py").write_text(line + "\ndef main(params): ...\n")
    fingerprint.imports.cache_clear()
    with pytest.raises(ValueError, match="import"):
        fingerprint.key("probe", clone)


def test_a_string_that_looks_like_a_comment_stays():
    assert fingerprint.spoken('x = "# not a comment"  # one\n') == 'x = "# not a comment"'
