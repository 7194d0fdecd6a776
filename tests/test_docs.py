"""The pages tell the truth: every command on them is run, by a test or by CI, word for word up to a `<name>`; every
link leads somewhere.
"""

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.conftest import sh

DOCS = sorted(Path("docs").glob("*.md"))
PAGES = [Path("README.md"), Path("CONTRIBUTING.md"), *DOCS, Path("data/raw/quickstart/README.md")]
CI = [Path(".ci/run"), *sorted(Path(".github/workflows").glob("*.yml"))]
COMMAND = re.compile(r"^    ((?:make|dvc|git|python|rm) .+?)(?:\s{2,}#.*)?$", re.M)
INLINE = re.compile(r"`((?:make|dvc|git|python|rm) [^`]+)`")
ELSEWHERE = {
    "python -m tests.perf.dpo --model models/base --number 128 --answers 12": "on a GPU, when it was measured",
    "python -m tests.perf.blank models/base models/blank hidden_size=2048 intermediate_size=8192 num_hidden_layers=16"
    " num_attention_heads=32 num_key_value_heads=8 head_dim=64": "on a GPU, when it was measured",
    "python -m tests.perf.near_duplicates": "when it was measured: datasketch, the other side, is not in the lock",
    "python -m data.raw.quickstart.make_annotations": "when the raw data were made",
    "python data/raw/quickstart/make_prompts.py": "by test_annotator, as a list of words",
}
"""What nothing here runs as it stands, and when it was run."""
GAP = re.compile(r" \S*(?:<|\.\.\.).*")
"""The first word that the reader fills in, and all after it."""


def plain(command: str) -> str:
    """A command on one line, without the quotes that a shell takes off."""
    try:
        return " ".join(shlex.split(command))
    except ValueError:  # a part of an f-string
        return " ".join(command.split())


def typed(page: str) -> list[str]:
    """The commands that a page tells to type."""
    return [plain(command) for pattern in (COMMAND, INLINE) for command in pattern.findall(page)]


TYPED = {command: page for page in PAGES for command in typed(page.read_text(encoding="utf-8"))}
PROFILES = [GAP.sub("", command) for command in TYPED if command.startswith("python -m stages.tools.profile")]


def texts(node: ast.AST) -> list[str]:
    return [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def is_shell(node: ast.AST) -> bool:
    """Whether a node calls sh, scene.sh, run, subprocess.run or Popen."""
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("sh", "run", "Popen")


def handed_to_a_shell(function: ast.FunctionDef, constants: dict[str, ast.expr]) -> set[str]:
    """The commands in a function's calls of a shell, and in what it fills their arguments from: its parameters' lists,
    its loops, its variables, the module's constants; of a helper also what it returns.
    """
    nodes = list(ast.walk(function))
    calls = [node for node in nodes if is_shell(node)]
    used = set().union(*map(names, calls))
    places = [*calls, *(function.decorator_list if calls else [])]
    places += [node.iter for node in nodes if isinstance(node, ast.For) and names(node.target) & used]
    places += [node.value for node in nodes if isinstance(node, ast.Assign) and names(node.targets[0]) & used]
    if not function.name.startswith("test_"):
        places += [node.value for node in nodes if isinstance(node, ast.Return) and node.value]
    named = set().union(*map(names, places)) & set(constants)
    places += [constants[name] for name in named]
    return {plain(line) for place in places for text in texts(place) for line in re.split(r"&&|\n", text)}


def run_by_tests(source: str) -> set[str]:
    module = ast.parse(source)
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
    constants = {name: node.value for node in module.body if isinstance(node, ast.Assign) for name in names(node)}
    return set().union(*(handed_to_a_shell(function, constants) for function in functions))


def run_by_ci() -> set[str]:
    """The lines of .ci/run and of the workflows' steps; a workflow's matrix is written out."""
    lines = CI[0].read_text(encoding="utf-8").splitlines()
    for workflow in CI[1:]:
        for job in yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values():
            commands = job.get("strategy", {}).get("matrix", {}).get("command", [])
            lines += [line for command in commands for line in command.splitlines()]
            lines += [line for step in job["steps"] for line in step.get("run", "").splitlines()]
    return {line.strip() for line in lines}


TESTS = [path for path in Path("tests").rglob("*.py") if path.name != "test_docs.py"]
RUN = run_by_ci().union(*(run_by_tests(path.read_text(encoding="utf-8")) for path in TESTS))


def is_run(command: str, run: set[str]) -> bool:
    """Whether it is run as it stands; where it has a gap, up to there; or with --force: a test has no terminal at which
    to answer DVC's question.
    """
    if GAP.search(command):
        begins = GAP.sub("", command)
        return any(f"{line} ".startswith(f"{begins} ") for line in run)
    return command in run or f"{command} --force" in run


@pytest.mark.parametrize("command", sorted(set(TYPED) - set(ELSEWHERE)))
def test_every_command_on_a_page_is_run_by_a_test_or_by_ci(command):
    composed = GAP.sub("", command) in PROFILES  # below
    assert composed or is_run(command, RUN), f"{TYPED[command]} tells to type it, and nothing runs it"


@pytest.mark.parametrize(
    ("source", "command", "runs"),
    [
        ("def test_a():\n    sh('dvc push', x)", "dvc push", True),
        ("def test_a():\n    sh('git add -A && dvc push', x)", "dvc push", True),
        ("def test_a():\n    sh('dvc gc -w --force', x)", "dvc gc -w", True),
        ("def test_a():\n    for line in ('dvc push',):\n        scene.sh(line)", "dvc push", True),
        ("@parametrize('c', ['dvc push'])\ndef test_a(c):\n    sh(c, x)", "dvc push", True),
        ("def test_a():\n    sh(f'dvc commit -f {stage}', x)", "dvc commit -f <stage>", True),
        ("def test_a():\n    sh('dvc commit -fq', x)", "dvc commit -f <stage>", False),
        ("def test_a():\n    sh('dvc push --run-cache', x)", "dvc push", False),
        ("def test_a():\n    assert 'dvc push' in told", "dvc push", False),
        ("def test_a():\n    told = 'dvc push'\n    sh('dvc pull', x)", "dvc push", False),
        ("ALL = ['dvc push']\ndef test_a():\n    for c in ALL:\n        run(c, x)", "dvc push", True),
        ("NOTE = 'dvc push'\ndef test_a():\n    sh('dvc pull', x)", "dvc push", False),
    ],
)
def test_only_what_reaches_a_shell_counts_as_run(source, command, runs):
    assert is_run(command, run_by_tests(source)) == runs


def test_what_is_run_elsewhere_stands_on_a_page():
    assert set(ELSEWHERE) <= set(TYPED)


def test_ci_runs_the_tests_of_the_readme():
    assert ".ci/run" in RUN and "make test" in RUN


@pytest.mark.parametrize("command", PROFILES)
def test_the_profiles_on_the_pages_compose(clone, command):
    done = sh(command, clone)
    assert done.returncode == 0, done.stderr
    assert "profile: params.yaml is now" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target
