"""IFEval: whether an answer follows instructions that a program can check, such as three bullet points or no comma.

The rules are lm-eval's (0.4.13), which are the benchmark's own. They look for sentences with NLTK's model of English,
which they would fetch from the network; here it comes out of the package llama-index-core, of which nothing is
imported. They tell languages with langdetect, which draws random numbers; here it always draws the same.

A question has four scores: whether all its instructions were followed, and which share, strictly and loosely (without
a first or last line, or asterisks). lm-eval's own share is over the instructions of all questions together, so that it
weighs questions with three more than those with one.

Source  Zhou et al. 2023, arXiv 2311.07911; lm_eval/tasks/ifeval
"""

import json
from importlib.metadata import distribution
from pathlib import Path
from statistics import fmean
from typing import Any

SENTENCES = "llama_index/core/_static/nltk_cache"


def prepared() -> Any:
    """lm-eval's module of rules, on local data and without chance."""
    import langdetect
    import nltk

    langdetect.DetectorFactory.seed = 0
    data = str(distribution("llama-index-core").locate_file(SENTENCES))
    if data not in nltk.data.path:
        nltk.data.path.insert(0, data)
    from lm_eval.tasks.ifeval import utils

    return utils


def as_ifeval(row: dict) -> dict:
    """A published row; what each instruction is told stays JSON, since every kind has fields of its own."""
    known = prepared().instructions_registry.INSTRUCTION_DICT
    names, told = row["instruction_id_list"], row["kwargs"]
    strange = [name for name in names if name not in known]
    if strange:
        raise ValueError(f"instruction {strange[0]!r} is none of IFEval's {len(known)}")
    if not names or len(names) != len(told):
        raise ValueError(f"{len(names)} instructions and kwargs for {len(told)}; each wants its own, {{}} where none")
    return {"key": row["key"], "prompt": row["prompt"], "instruction_id_list": names, "kwargs": json.dumps(told)}


def followed(document: dict, results: list[str]) -> dict[str, float]:
    """The four scores of an answer."""
    found = prepared().process_results(document | {"kwargs": json.loads(document["kwargs"])}, results)
    return {name: fmean(value) if isinstance(value, list) else float(value) for name, value in found.items()}


def configured(folder: Path) -> dict[str, Any]:
    """lm-eval's settings, with scores of single questions."""
    from lm_eval.tasks._yaml_loader import load_yaml

    prepared()
    config = load_yaml(folder / "ifeval/ifeval.yaml")
    metrics = [{**metric, "aggregation": "mean"} for metric in config["metric_list"]]
    return config | {"test_split": "test", "process_results": followed, "metric_list": metrics}
