"""Ask the judge whether it prefers a policy's answer or pi_0's to the same prompt: how a policy is watched where no
gold reward is known.

Reads   measures: a policy's measured answers; baseline: the same of pi_0; model: the judge, where it runs here;
        template: its question, in Jinja
Writes  judged: the measures' columns and judge_preference (float64), P(the answer is better than pi_0's of the same
        prompt and sample), the mean of both orders; 0.5 where the two texts are the same, null where no verdict could
        be read
Params  judge.served, judge.top_logprobs, judge.max_tokens, judge.limit_by; dtype
Source  Zheng et al. 2023, arXiv 2306.05685: both orders, since a judge may favour a place

The scorer of the same name asks the same judge about candidates.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from stages import rows, shards
from stages.signals import comparison, judging

COLUMNS = pa.schema([("judge_preference", pa.float64())])


@dataclass(frozen=True)
class Preferences:
    """A worker: answers with `theirs`, another answer to the same prompt, to P(the answer is better)."""

    judge: judging.Judge
    columns: ClassVar[pa.Schema] = COLUMNS

    def load(self) -> rows.Work:
        ask = self.judge.load()

        def compare(answers: list[dict], tick: rows.Tick) -> list[dict]:
            found = preferences(answers, ask)
            return [row | {"judge_preference": value} for row, value in zip(answers, found, strict=True)]

        return compare


def beside(answers: list[dict], baseline: list[dict]) -> list[dict]:
    """Answers with `theirs`, the baseline's to the same prompt and sample. Raises ValueError for one without."""
    known = {(row["id"], row["sample"]): row["completion"] for row in baseline}
    alone = [row["id"] for row in answers if (row["id"], row["sample"]) not in known]
    if alone:
        raise ValueError(f"pi_0 has no answer to prompt {alone[0]} to compare with; run respond again for all policies")
    return [row | {"theirs": known[row["id"], row["sample"]]} for row in answers]


def preferences(answers: list[dict], ask: comparison.Ask) -> list[float | None]:
    """Of each answer over `theirs`: a half where the texts are the same, None where no verdict could be read."""
    apart = [row for row in answers if row["completion"] != row["theirs"]]
    verdicts = comparison.both_orders(ask, [(row, row | {"completion": row["theirs"]}) for row in apart])
    told = iter(None if verdict is None else comparison.preferred(verdict) for verdict in verdicts)
    return [next(told) if row["completion"] != row["theirs"] else 0.5 for row in answers]


def check_read(answers: list[dict]) -> None:
    """Raise ValueError where questions were asked and no verdict could be read."""
    asked = [row["judge_preference"] for row in answers if row["completion"] != row["theirs"]]
    if asked and all(preference is None for preference in asked):
        told = f"none of {len(asked)} verdicts could be read"
        raise ValueError(f"{told}; does the judge answer A or B, and do two answers fit its context?")


def main(params: Any, measures: Path, baseline: Path, model: Path, template: Path, *, judged: Path) -> None:
    table, judge = pq.read_table(measures), judging.asker(params, model, template)
    answers = beside(table.to_pylist(), pq.read_table(baseline).to_pylist())
    (compared,) = rows.mapped([answers], Preferences(judge), "judge", judge.chunk)
    check_read(compared)
    pq.write_table(shards.widened(table, compared, COLUMNS), judged)
    read = [row["judge_preference"] for row in compared if row["judge_preference"] is not None]
    told = f"{len(read)} of {len(compared)} answers of {measures.stem} compared with pi_0's"
    print(f"judge: {told}, preferred with probability {sum(read) / len(read):.3f}")
