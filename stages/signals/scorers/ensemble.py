"""Score candidates by several reward models at once, which differ by their seed: where they disagree, none of them has
seen enough.

Reads   members: the scores of each member for the same candidates
Writes  scores: the candidates' columns, reward (float64, a logit) by the rule, and spread (float64), the members'
        standard deviation
Params  ensemble.rule: mean, worst, or penalised (mean less ensemble.penalty times the spread)
Source  Coste et al. 2023, arXiv 2310.02743: mean, worst-case and uncertainty-weighted optimisation

Members are put on one scale first: a Bradley-Terry reward may be shifted at will, so each loses its mean over a
prompt's candidates.
"""

from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def centred(rows: list[dict]) -> dict[tuple[str, int], float]:
    """Each candidate's reward less the mean of its prompt's."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(row["id"], []).append(row["reward"])
    means = {name: fmean(values) for name, values in groups.items()}
    return {(row["id"], row["sample"]): row["reward"] - means[row["id"]] for row in rows}


def combined(values: list[float], rule: str, penalty: float) -> float:
    """One reward from the members' for one candidate."""
    return {"mean": fmean(values), "worst": min(values), "penalised": fmean(values) - penalty * pstdev(values)}[rule]


def main(params: Any, members: list[Path], *, scores: Path) -> None:
    tables = [pq.read_table(path) for path in members]
    keyed = [centred(table.to_pylist()) for table in tables]
    keys = [(row["id"], row["sample"]) for row in tables[0].select(["id", "sample"]).to_pylist()]
    unlike = [str(path) for path, member in zip(members, keyed, strict=True) if set(member) != set(keys)]
    if unlike:
        raise ValueError(f"{unlike[0]} scores other candidates than {members[0]}; score both again")
    values = [[member[key] for member in keyed] for key in keys]
    rewards = [combined(v, params.ensemble.rule, params.ensemble.penalty) for v in values]
    table = tables[0].drop_columns(["reward"]).append_column("reward", pa.array(rewards, pa.float64()))
    pq.write_table(table.append_column("spread", pa.array(map(pstdev, values), pa.float64())), scores)
    spread = f", mean spread {fmean(map(pstdev, values)):.3f}" if keys else ""
    print(f"score ensemble: {len(keys)} candidates by {params.ensemble.rule} of {len(members)}{spread}")
