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

from stages.evaluation import html_pages, over_seeds, policy_metrics
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


def summary(rows: dict[int, Row | None], titles: list[str], confidence: float) -> dict[str, Any]:
    """Everything over seeds: each column's mean and standard error, the claim's two comparisons, the verdict."""
    there = [row for row in rows.values() if row]
    columns = {title: [row[title] for row in there] for title in there[0]}
    found = over_seeds.compared({title: columns[title] for title in titles}, confidence)
    return {
        "confidence": confidence,
        "seeds": rows,
        "over_seeds": {title: over_seeds.spread([value for value, *_ in each]) for title, each in columns.items()},
        "claim": found,
        "verdict": verdict(found, [seed for seed, row in rows.items() if not row]),
    }


def cell(numbers: list[float]) -> str:
    """A number, or a difference with its interval."""
    value, *interval = numbers
    if not interval:
        return f"{value:z.2f}"
    low, high = interval
    return f"{value:+z.2f} [{low:z.2f}, {high:z.2f}]"


def table_of_seeds(facts: dict[str, Any], costs: dict[int, list[str]]) -> str:
    """A line for each seed, then mean and standard error; costs: seed -> minutes and stages run."""
    columns = list(facts["over_seeds"])
    lines = [
        [str(seed), *(cell(row[title]) for title in columns), *costs[seed]]
        for seed, row in facts["seeds"].items()
        if row
    ]
    lines += [[f"{seed}: failed", *[""] * (len(columns) + 2)] for seed, row in facts["seeds"].items() if not row]
    for name in ("mean", "standard_error"):
        lines.append([name.replace("_", " "), *(f"{facts['over_seeds'][c][name]:.2f}" for c in columns), "", ""])
    return html_pages.markdown(["seed", *columns, "minutes", "stages run"], lines)


def table_of_claim(facts: dict[str, Any]) -> str:
    """The claim's two comparisons over seeds."""
    lines = []
    for title, each in facts["claim"].items():
        t = "" if each["t"] is None else f"{each['t']:.2f}"
        tests = [t, f"{each['p']:.2g}", f"{each['p_holm']:.2g}"]
        above = f"{each['seeds_above_zero']} of {each['seeds']}"
        mean = cell([each["mean"], *each["interval"]])
        lines.append([title, mean, f"{each['standard_error']:.2f}", *tests, above, each["verdict"]])
    interval = html_pages.percent(facts["confidence"])
    header = ["over seeds", f"mean [{interval}]", "standard error", "t", "p", "p (Holm)"]
    return html_pages.markdown([*header, "seeds above 0 by their own interval", "verdict"], lines)


def page(facts: dict[str, Any], measure: Measure, costs: dict[int, list[str]]) -> str:
    """metrics/seeds.md."""
    interval, degrees = html_pages.percent(facts["confidence"]), len(list(filter(None, facts["seeds"].values()))) - 1
    seeds = (
        f"Differences are of the {measure.what} on the test prompts, the same for every seed, each with the {interval} "
        "interval of its own seed, by bootstrap over prompts; KL and tokens are the last policy's."
    )
    claim = f"Student's t over seeds, degrees of freedom: {degrees}; Holm over the two comparisons."
    told = f"Verdict on online over SFT and online over offline: {facts['verdict']}."
    return f"{table_of_seeds(facts, costs)}\n{seeds}\n\n{table_of_claim(facts)}\n{claim}\n\n{told}\n"


def cost(revision: str) -> list[str]:
    """Minutes and stages of an experiment; nothing of the run at hand."""
    return (
        ["", ""] if revision == "HEAD" else [experiments.minutes_told(revision), str(experiments.stages_run(revision))]
    )


def report(params: Params, measure: Measure, seeds: list[int]) -> None:
    """Write what is known of the seeds. Raises ValueError where one is missing."""
    done, names = finished(), policy_metrics.names(params.iterations)
    rows = {seed: row_of(policies_at(done[seed], names), measure) if seed in done else None for seed in seeds}
    missing = [seed for seed, row in rows.items() if not row]
    remedy = "mend what DVC's message above names and run this again, which runs only what is missing"
    told = f"seed {', '.join(map(str, missing))} failed; {remedy}"
    if len(seeds) - len(missing) < 2:
        raise ValueError(told)
    facts = summary(rows, claimed(names), params.evaluate.confidence)
    NUMBERS.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    TABLE.write_text(page(facts, measure, {seed: cost(done[seed]) for seed in seeds if seed in done}), encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))
    if missing:
        raise ValueError(told)


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
