"""Score candidates by several reward models at once, which differ by their seed: where they disagree, none of them has
seen enough.

Reads   members: each member's scores of the same candidates, in shards of the same names
Writes  scores: the candidates' shards, reward (float64, a logit) by the rule, and spread (float64), the members'
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

from stages import shards

COLUMNS = pa.schema([("reward", pa.float64()), ("spread", pa.float64())])


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


def together(tables: list[pa.Table], names: list[str], rule: str, penalty: float) -> pa.Table:
    """The members' scores of one shard as one. Raises ValueError where they scored unlike candidates."""
    keyed = [centred(table.to_pylist()) for table in tables]
    keys = [(row["id"], row["sample"]) for row in tables[0].select(["id", "sample"]).to_pylist()]
    unlike = [name for name, member in zip(names, keyed, strict=True) if set(member) != set(keys)]
    if unlike:
        raise ValueError(f"{unlike[0]} scores other candidates than {names[0]}; score both again")
    values = [[member[key] for member in keyed] for key in keys]
    found = [{"reward": combined(each, rule, penalty), "spread": pstdev(each)} for each in values]
    return shards.widened(tables[0].drop_columns(["reward"]), found, COLUMNS)


def main(params: Any, members: list[Path], *, scores: Path) -> None:
    scores.mkdir()
    spreads, names = [], [file.name for file in shards.files(members[0])]
    for name in names:
        tables = [pq.read_table(member / name) for member in members]
        said = [str(member / name) for member in members]
        made = together(tables, said, params.ensemble.rule, params.ensemble.penalty)
        pq.write_table(made, scores / name)
        spreads += made["spread"].to_pylist()
    told = f", mean spread {fmean(spreads):.3f}" if spreads else ""
    print(f"score ensemble: {len(spreads)} candidates by {params.ensemble.rule} of {len(members)}{told}")
