"""HumanEval and MBPP: questions whose answer is a program, which passes its tests or does not.

What is asked stands in lm-eval's YAML files, read as text: the helpers that these name ask a hub for a metric once they
are imported. What is run is put together as there, and runs in stages/benchmarks/sandbox.py alone.

        humaneval       task_id, prompt, entry_point, test: the prompt and what was written behind it
        mbpp            task_id, text, test_list, test_setup_code: what was written. Of the published file the test
                        split is asked, task_id 11 to 510; lm-eval's own three worked examples are 2, 3 and 4

lm-eval leaves out `test_setup_code`, which one question of the test split has, so that nothing could pass there.

Source  https://github.com/EleutherAI/lm-evaluation-harness 0.4.13, lm_eval/tasks/humaneval and mbpp;
        https://github.com/google-research/google-research/tree/master/mbpp, the splits
"""

import ast
import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stages.benchmarks import sandbox

FILES = {"humaneval": "humaneval/humaneval.yaml", "mbpp": "mbpp/mbpp.yaml"}
MBPP_TEST = range(11, 511)
METRIC = "pass_at_1"
"""One greedy answer to a question."""


def as_humaneval(row: dict) -> dict:
    return {name: row[name] for name in ("task_id", "prompt", "entry_point", "test")}


def as_mbpp(row: dict) -> dict:
    if len(row["test_list"]) != 3:
        raise ValueError(f"{len(row['test_list'])} tests; three are wanted, since the prompt names three")
    return {name: row[name] for name in ("task_id", "text", "test_list", "test_setup_code")}


def in_test_split(task: str, questions: list[dict]) -> list[dict]:
    """The questions that are asked; all but of MBPP."""
    return [row for row in questions if task != "mbpp" or row["task_id"] in MBPP_TEST]


def configured(task: str, folder: Path) -> dict[str, Any]:
    """lm-eval's settings of a task, in the folder of its tasks, without the helpers that grade."""
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(folder / FILES[task], resolve_func=False)
    left_out = ("metric_list", "filter_list")
    config = {name: value for name, value in config.items() if name not in left_out}
    if "fewshot_config" in config:
        helper, _, function = config["fewshot_config"]["samples"].rpartition(".")
        config["fewshot_config"] |= {"samples": returned(Path(f"{helper}.py"), function)}
    return config


def returned(file: Path, function: str) -> Any:
    """The literal that a function of a Python file returns, read and not run."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    (defined,) = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == function]
    (given,) = [node.value for node in defined.body if isinstance(node, ast.Return) and node.value]
    return ast.literal_eval(given)


def program(task: str, document: dict, completion: str) -> str:
    """What is run of an answer; nothing where nothing was written."""
    if not completion.strip():
        return ""
    return document["prompt"] + completion if task == "humaneval" else completion


def tests(task: str, document: dict) -> str:
    if task == "humaneval":
        return f"{document['test']}\ncheck({document['entry_point']})"
    return "\n".join([document["test_setup_code"], *document["test_list"]])


def outcomes(rows: list[dict], allowed: Any) -> dict[str, str]:
    """Question -> one of sandbox.OUTCOMES. Raises ValueError where there is no sandbox."""
    sandbox.check()
    found = {}
    for row in tqdm(rows, desc="grade", unit="program"):
        document = json.loads(row["document"])
        text = program(row["task"], document, row["completion"])
        found[row["id"]] = sandbox.run(text, tests(row["task"], document), allowed) if text else "no_program"
    return found


def scores(outcomes: dict[str, str]) -> dict[str, dict[str, float]]:
    """Metric -> question -> score."""
    return {METRIC: {name: float(outcome == "passed") for name, outcome in outcomes.items()}}


def counted(outcomes: dict[str, str]) -> dict[str, int]:
    """How many did not pass, and how."""
    return {name: list(outcomes.values()).count(name) for name in sandbox.OUTCOMES[1:]}
