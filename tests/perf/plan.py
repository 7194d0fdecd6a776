"""The plan's forecast against what the run then took, stage by stage.

Run     python -m stages.tools.plan --json > forecast.json
        make repro
        python -m tests.perf.plan forecast.json
Prints  a Markdown table of the stages that took LONG seconds or were to take so long, and both sums; ends with 1 where
        one of them is off by more than ALLOWED
"""

import json
import sys
from pathlib import Path

from stages.guard import scratch, spent

LONG, ALLOWED = 10.0, 1.5  # seconds, and a ratio in either direction


def compared(forecast: dict[str, dict], journal: dict[str, float]) -> dict[str, tuple[float, float]]:
    """Seconds foreseen and taken, of every stage that was foreseen and has run; a run is known by its first output."""
    ran = {name: journal.get(told["outs"][0]) for name, told in forecast.items()}
    return {name: (forecast[name]["seconds"], took) for name, took in ran.items() if took is not None}


def off(foreseen: float, took: float) -> float:
    """How many times the one is the other, at least 1."""
    return max(foreseen, took) / max(1e-9, min(foreseen, took))


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    lines = spent.noted(scratch.home(Path.cwd()))
    both = compared(told["stages"], {line["outs"][0]: line["seconds"] for line in lines})
    print(f"on {told['device']}\n\n| stage | by | foreseen | took | ratio |\n|---|---|---:|---:|---:|")
    long = {name: pair for name, pair in both.items() if max(pair) >= LONG}
    for name, (foreseen, took) in long.items():
        by = told["stages"][name]["by"]
        print(f"| `{name}` | {by} | {foreseen:.1f} | {took:.1f} | {foreseen / took:.2f} |")
    sums = [sum(pair[place] for pair in both.values()) for place in (0, 1)]
    ratio = sums[0] / sums[1] if both else float("nan")
    print(f"| all {len(both)} of {len(told['stages'])} | | {sums[0]:.1f} | {sums[1]:.1f} | {ratio:.2f} |")
    wrong = [name for name, pair in long.items() if off(*pair) > ALLOWED]
    print(f"{len(wrong)} of {len(long)} stages are off by more than {ALLOWED}: {', '.join(wrong) or 'none'}")
    sys.exit(bool(wrong) or not both)


if __name__ == "__main__":
    main()
