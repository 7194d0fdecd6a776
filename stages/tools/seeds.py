"""Run the pipeline with more seeds, as DVC experiments, and say what its claim is worth over seeds.

    python -m stages.tools.seeds [--seeds 5]          (or: make seeds)

Reads   the run at hand, which is the first seed, and the experiments that differ from it by the seed alone; those that
        are not there yet are run first
Writes  metrics/seeds.md: every seed's numbers, their mean and standard error, and the claim, which is that online
        training (the last policy) is above pi_0 and above offline DPO; metrics/seeds.json: the same
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from stages.evaluation import over_seeds, over_seeds_page, policy_metrics
from stages.guard.params import Params, load
from stages.tools import experiments

TABLE, NUMBERS = Path("metrics/seeds.md"), Path("metrics/seeds.json")
MEMBERS = 3
"""Reward models of an ensemble, which are trained with seed, seed + 1 and seed + 2."""
Row = dict[str, list[float]]
"""Column -> one seed's number, or its difference with the ends of its own interval."""
Policies = dict[str, dict[str, Any]]
"""Policy -> its numbers on the test prompts, in the order in which they are made."""


class Measure(NamedTuple):
    """By what two policies are compared: names in metrics/policy, and what `over_pi0` is where they are alike."""

    what: str
    over_pi0: str
    over_offline: str
    alike: float


MEASURES = [
    Measure("gold reward", "gain", "over_offline", 0.0),
    Measure("preference of the judge", "judge_win_rate", "judge_over_offline", 0.5),
]


def seeds_of(params: Any, number: int) -> list[int]:
    """The run's own seed and those after it, so far apart that no two runs share a member of an ensemble.

    Raises ValueError for a number that has no spread.
    """
    if number < 2:
        raise ValueError(f"--seeds {number}: one run has no spread over seeds; give 2 or more, of which one is there")
    apart = MEMBERS if params.signals.ensemble else 1
    return [params.seed + apart * k for k in range(number)]


def seed_and_rest(revision: str) -> tuple[int, dict[str, Any]]:
    """The seed in a revision's params.yaml, and all else in it that can decide a result."""
    settings = YAML(typ="safe", pure=True).load(experiments.shown(revision, "params.yaml"))
    return settings["seed"], {key: value for key, value in settings.items() if key not in ("seed", "runtime")}


def finished() -> dict[int, str]:
    """Seed -> revision of a run that differs from the one at hand by the seed alone, whatever its name."""
    own, here = seed_and_rest("HEAD")
    runs = {revision: seed_and_rest(revision) for revision in experiments.finished().values()}
    return {seed: revision for revision, (seed, rest) in runs.items() if rest == here} | {own: "HEAD"}


def policies_at(revision: str, names: list[str]) -> Policies:
    return {name: experiments.facts(revision, f"metrics/policy/{name}.json")[name]["test"] for name in names}


def measure_of(policies: Policies) -> Measure:
    """The gold reward, or the judge where there is none. Raises ValueError where there is neither."""
    for measure in MEASURES:
        if measure.over_offline in policies["pi0"]:
            return measure
    rule = "the claim needs a gold reward or a judge, and this run has neither: its proxy is what training raises"
    raise ValueError(f"{rule}; set evaluate.gold, or evaluate.judge and evaluate.reads")


def difference(facts: dict[str, Any], name: str, alike: float) -> list[float]:
    """A number and its interval's ends, less what it is where two policies are alike."""
    return [round(value - alike, 4) for value in (facts[name], *facts[f"{name}_interval"])]


def claimed(policies: list[str]) -> list[str]:
    """The claim's comparisons: the last policy over pi_0 and over offline DPO."""
    last = policy_metrics.label(policies[-1])
    return [f"{last} over π0", f"{last} over offline DPO"]


def row_of(policies: Policies, measure: Measure) -> Row:
    """One seed's numbers: every policy over pi_0, the last one over offline DPO, and what the last one costs."""
    *_, last = policies.values()
    row = {"π0": [policies["pi0"]["gold_reward"]]} if "gold_reward" in policies["pi0"] else {}
    for name in (name for name in policies if name != "pi0"):
        row[f"{policy_metrics.label(name)} over π0"] = difference(policies[name], measure.over_pi0, measure.alike)
    row[claimed(list(policies))[1]] = difference(last, measure.over_offline, 0.0)
    return row | {"KL": [last["kl"]], "tokens": [last["tokens"]]}


def verdict(found: dict[str, dict[str, Any]], missing: list[int]) -> str:
    """The claim's sentence; none where a seed is missing, since those that are there are those that went well."""
    if missing:
        return f"none, since seed {', '.join(map(str, missing))} failed and is in no number here"
    return over_seeds.claim(found)


def summary(rows: dict[int, Row | None], measure: Measure, titles: list[str], confidence: float) -> dict[str, Any]:
    """Everything over seeds: each column's mean and standard error, the claim's two comparisons, the verdict."""
    there = [row for row in rows.values() if row]
    columns = {title: [row[title] for row in there] for title in there[0]}
    found = over_seeds.compared({title: columns[title] for title in titles}, confidence)
    return {
        "measure": measure.what,
        "confidence": confidence,
        "seeds": rows,
        "over_seeds": {title: over_seeds.spread([value for value, *_ in each]) for title, each in columns.items()},
        "claim": found,
        "verdict": verdict(found, [seed for seed, row in rows.items() if not row]),
    }


def cost(revision: str | None) -> list[str]:
    """Minutes and stages of an experiment; nothing of the run at hand, nor of a seed that failed."""
    if revision in (None, "HEAD"):
        return ["", ""]
    return [experiments.minutes_told(revision), str(experiments.stages_run(revision))]


def report(params: Params, measure: Measure, seeds: list[int]) -> None:
    """Write what is known of the seeds. Raises ValueError where one is missing."""
    done, names = finished(), policy_metrics.names(params.iterations)
    missing = [seed for seed in seeds if seed not in done]
    if len(seeds) - len(missing) >= 2:
        rows = {seed: row_of(policies_at(done[seed], names), measure) if seed in done else None for seed in seeds}
        facts = summary(rows, measure, claimed(names), params.evaluate.confidence)
        NUMBERS.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        costs = {seed: cost(done.get(seed)) for seed in seeds}
        TABLE.write_text(over_seeds_page.page(facts, costs), encoding="utf-8")
        print(TABLE.read_text(encoding="utf-8"))
    if missing:
        remedy = "mend what DVC's message above names and run this again, which runs only what is missing"
        raise ValueError(f"seed {', '.join(map(str, missing))} failed; {remedy}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="seeds", description="The pipeline over several seeds, and its claim.")
    parser.add_argument("--seeds", type=int, default=5, help="how many, the run at hand among them; 5")
    given = parser.parse_args()
    with experiments.in_one_line("seeds"):
        params = load(Path("params.yaml"))
        seeds = seeds_of(params, given.seeds)
        experiments.check_clean(TABLE, NUMBERS)
        measure = measure_of(policies_at("HEAD", policy_metrics.names(params.iterations)))
        done = finished()
        experiments.run({f"seed-{seed}": [f"seed={seed}"] for seed in seeds if seed not in done})
        report(params, measure, seeds)


if __name__ == "__main__":
    main()
