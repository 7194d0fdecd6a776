"""Put together the pairs that an iteration trains on: D <- D_off and D_1..D_t, or the newest batch alone.

Reads   before: the history so far (D_off at first); pairs: what this iteration made, with their reference
        log-probabilities; prompts: the iteration's, of which each new pair must be;
        `iteration`: the sampled policy's name, pi0, pi1, ...
Writes  history: rows of both that the params admit, older ones first; none where the iteration made none, since a run
        that was stopped trains no more
Params  history.keep (newest or all), history.offline (whether D_off joins in)
Source  RLHF Workflow, arXiv 2405.07863, Algorithm 2, line 3
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def admitted(before: list[dict], pairs: list[dict], keep: str, offline: bool) -> list[dict]:
    """Earlier pairs that stay, and the new ones behind them. Raises ValueError where a pair stands in both."""
    stay = [row for row in before if (offline if row["made_in"] == "offline" else keep == "all")]
    known = {(row["id"], row["made_in"]) for row in stay}
    twice = [row["id"] for row in pairs if (row["id"], row["made_in"]) in known]
    if twice:
        first = f"{twice[0]} of {pairs[0]['made_in']} first"
        raise ValueError(f"{len(twice)} new pairs stand in the history already, {first}; run rank again")
    return stay + pairs if pairs else []


def said(prompt: list[dict]) -> tuple[tuple[str, str], ...]:
    """What a prompt's messages say, in whichever order a file has their fields."""
    return tuple((message["role"], message["content"]) for message in prompt)


def check_prompts(pairs: list[dict], dealt: list[list[dict]], iteration: str) -> None:
    """Raise ValueError for a pair that another iteration made, or to a prompt that this one was not dealt."""
    known = set(map(said, dealt))
    for row in pairs:
        if row["made_in"] != iteration:
            told = f"was made in {row['made_in']}, not in {iteration}"
            raise ValueError(f"pair {row['id']} {told}; these are another iteration's pairs, run rank again")
        if said(row["prompt"]) not in known:
            told = f"its prompt is none of the {len(dealt)} dealt"
            raise ValueError(f"pair {row['id']} of {iteration}: {told}; these are another run's pairs, run rank again")


def main(params: Any, before: Path, pairs: Path, prompts: Path, iteration: str, *, history: Path) -> None:
    old, new = pq.read_table(before), pq.read_table(pairs)
    dealt = pq.read_table(prompts, columns=["prompt"])["prompt"].to_pylist()
    check_prompts(new.to_pylist(), dealt, iteration)
    rows = admitted(old.to_pylist(), new.to_pylist(), params.history.keep, params.history.offline)
    pq.write_table(pa.Table.from_pylist(rows, new.schema), history)
    print(f"history: {old.num_rows} earlier and {new.num_rows} new pairs -> {len(rows)}")
