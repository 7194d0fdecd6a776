"""Score a reward model of your own on RewardBench, or on any judged pairs, in one command.

    python -m stages.tools.rate path/to/model data/raw/reward_bench
    python -m stages.tools.rate owner/model@<40-digit commit> path/to/pairs.jsonl

Writes  nothing; prints Table 1 with the paper's rows, and every subset with its interval. `dtype` and `runtime` are
        those of params.yaml.
"""

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq

from stages import shards
from stages.evaluation import agreement, html_pages, reward_bench, signal, signal_report
from stages.guard import params
from stages.signals import pairs_as_candidates
from stages.signals.scorers import reward_model
from stages.training import digest, origins, pretrained

WANTED = ["*.safetensors", "*.json", "*.jinja", "tokenizer*", "*.model"]  # no pickle is ever fetched


def folder(name: str) -> Path:
    """The model's folder, fetched from the hub where it is none here.

    Raises ValueError for a hub model without a commit, or out of reach.
    """
    if Path(name).is_dir():
        return Path(name)
    import huggingface_hub

    owner, _, commit = name.partition("@")
    if not origins.COMMIT.fullmatch(commit):
        rule = "as a hub model it needs its commit, so that the number can be repeated"
        raise ValueError(f"{name}: is no folder here, and {rule}: {owner}@<40 digits>")
    try:
        return Path(huggingface_hub.snapshot_download(owner, revision=commit, allow_patterns=WANTED))
    except OSError as error:
        told = " ".join(str(error).split())[:160]
        raise ValueError(f"{name}: cannot be fetched ({told}); download it elsewhere and name its folder") from error


def brought(name: str, settings: Any, scratch: Path) -> Path:
    """A folder as it is, which was trained here; a hub model as `pretrained` brings it, read by its own template."""
    found = folder(name)
    if Path(name).is_dir():
        return found
    section = SimpleNamespace(model=str(found), revision=digest.model(found), template_settings={})
    reward, template = scratch / "reward", Path("data/raw/templates/pretrained")
    pretrained.main(SimpleNamespace(pretrained=section, dtype=settings.dtype), template, reward=reward)
    return reward


def rated(model: Path, raw: Path, settings: Any, scratch: Path) -> dict[str, Any]:
    """Accuracies by section and subset, through the same stages as the pipeline's own signals.

    Raises ValueError where there is no pair.
    """
    pairs, candidates, scores = scratch / "pairs.parquet", scratch / "candidates", scratch / "scores"
    reward_bench.main(settings, raw, pairs=pairs, account=scratch / "account.json")
    sides = pairs_as_candidates.laid_out(pairs)
    shards.write(candidates, sides, pairs_as_candidates.SCHEMA, most=max(1, len(sides)))
    reward_model.main(settings, model, candidates, scores=scores)
    rows, _ = signal.with_rewards(pq.read_table(pairs).to_pylist(), shards.read(scores))
    if not rows:
        remedy = "put RewardBench's files there, or name a file of prompt, chosen, rejected"
        raise ValueError(f"{raw}: holds no judged pairs; {remedy}")
    return agreement.on_bench(rows, 0.95)


def told(name: str, found: dict[str, Any]) -> str:
    """Two tables: the sections beside the paper's rows, and the subsets."""
    row = {
        column: signal_report.section({"reward_bench": found}, c)
        for c, column in signal_report.COLUMNS.items()
        if c in found["sections"]
    }
    subsets = [[subset, str(fact["pairs"]), signal_report.share(fact)] for subset, fact in found["subsets"].items()]
    table = html_pages.markdown(["reward model", *row], [[name, *row.values()], *signal_report.published(list(row))])
    return f"{table}\n{html_pages.markdown(['subset', 'pairs', 'accuracy in % [95 %]'], subsets)}"


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("rate: give a model's folder, or owner/model@commit, and a file or folder of judged pairs")
    try:
        whole = params.load(Path("params.yaml"))
        settings = SimpleNamespace(dtype=whole.dtype, runtime=whole.runtime)
        with tempfile.TemporaryDirectory() as scratch:
            model = brought(sys.argv[1], settings, Path(scratch))
            print("\n" + told(sys.argv[1], rated(model, Path(sys.argv[2]), settings, Path(scratch))))
    except ValueError as error:
        sys.exit(f"rate: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
