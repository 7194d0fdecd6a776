"""Look at the policy before an iteration samples from it, and end the run of iterations where it has gone wrong.

Reads   measures: the policy's measured answers, of which the validation prompts' count; `iteration`: the policy that
        it samples from, pi0, pi1, ...
Writes  verdict: stop, and the reason; the same bytes until a rule is broken, so that nothing reruns
        because of other numbers
Params  stop.max_kl (nats per answer), max_tokens, min_finished, max_repetition, min_distinct_2; null for no such rule
Source  over-optimisation shows in KL, length and repetition before it shows in the reward: Gao et al. 2023, arXiv
        2210.10760

After a stop `batch` deals no prompts, so the iteration samples and trains nothing and its policy is a copy of the one
that broke the rule, which breaks it again before the next iteration; the copy is still evaluated.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stages.evaluation import monitors


def main(params: Any, measures: Path, iteration: str, *, verdict: Path) -> None:
    answers = [row for row in pq.read_table(measures).to_pylist() if row["split"] == "validation"]
    seen = monitors.numbers(answers)
    why = "; ".join(monitors.broken(seen, params.stop))
    verdict.write_text(json.dumps({"stop": bool(why), "reason": why}, indent=2) + "\n", encoding="utf-8")
    told = f"yes, {why}" if why else "no"
    print(f"stop {iteration}: {told}; {seen}")
