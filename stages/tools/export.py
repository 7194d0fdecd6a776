"""Take a policy, or the pairs of an iteration, out of the pipeline, with a card that the run itself fills in.

    python -m stages.tools.export models/pi2 OUT
    python -m stages.tools.export data/pairs/pi1.parquet OUT
    python -m stages.tools.export models/pi2 OUT --licence apache-2.0      (where nobody here knows the base model's)

Reads   the policy or the pairs, which must be what dvc.lock recorded; params.yaml, dvc.lock, the accounts in metrics/
Writes  OUT, which must not be there yet: a model folder as transformers, vLLM and `huggingface_hub.upload_folder` take
        it, or a data set as `datasets.load_dataset` and TRL take it; in both README.md, the card
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from stages.guard import checks, integrity, params
from stages.guard.refusal import Refusal
from stages.tools import cards

LEFT = ("text_contract.json",)
"""Files beside a model that only the pipeline reads."""


def model(folder: Path, out: Path, settings: params.Params, licence: str) -> None:
    """A policy and its card."""
    known = Path("metrics/policy") / f"{folder.name}.json"
    policy = json.loads(known.read_text(encoding="utf-8"))[folder.name] if known.exists() else {}
    loss, beta = "+".join(settings.dpo.loss), settings.dpo.beta
    trained = f"A policy of iterative preference optimisation ({loss}, beta {beta}) against the fixed reference pi0."
    made = trained if "dpo" in policy else "A policy before any preference optimisation."
    facts = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    sections = ("seed", "sft", "rank", "generate", "dpo") if "dpo" in policy else ("seed", "sft")
    card = cards.card(
        "model_card.md.jinja",
        name=folder.name,
        licence=licence,
        base=cards.base_of(settings),
        made=made,
        end_of_turn=facts["eos_token"],
        dtype=settings.dtype,
        results=cards.results(policy) if policy else None,
        confidence=round(100 * settings.evaluate.confidence),
        data_table=cards.data_table(),
        accounts=[cards.account(name, fact) for name, fact in policy.items() if "rows_in" in fact],
        recipe=cards.in_yaml(settings.model_dump(include=set(sections))),
        lineage=cards.lineage(folder),
    )
    out.mkdir(parents=True)
    for file in sorted(path for path in folder.iterdir() if path.is_file() and path.name not in LEFT):
        shutil.copyfile(file, out / file.name)
    (out / "README.md").write_text(card, encoding="utf-8")


def pairs(file: Path, out: Path, settings: params.Params, licence: str) -> None:
    """The pairs of an iteration and their card."""
    import pyarrow.parquet as pq

    table, known = pq.read_table(file), Path("data/rank") / f"{file.stem}.json"
    facts = json.loads(known.read_text(encoding="utf-8"))
    more = [name for name in table.column_names if name not in ("prompt", "chosen", "rejected")]
    card = cards.card(
        "data_card.md.jinja",
        name=f"pairs of {file.stem}",
        licence=licence,
        rows=f"{len(table):,}",
        policy=file.stem,
        scorer=settings.rank.scorer,
        columns=", ".join(f"`{name}`" for name in more),
        prompts=settings.prompts.raw,
        base=cards.base_of(settings),
        account=cards.account("prompts to pairs", facts),
        recipe=cards.in_yaml(settings.model_dump(include={"seed", "generate", "rank"})),
        lineage=cards.lineage(file),
    )
    (out / "data").mkdir(parents=True)
    shutil.copyfile(file, out / "data/train.parquet")
    (out / "README.md").write_text(card, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="export", description="A policy or an iteration's pairs, with a card.")
    parser.add_argument("target", type=Path, help="models/<policy> or data/pairs/<policy>.parquet")
    parser.add_argument("out", type=Path, help="a folder that is not there yet")
    parser.add_argument("--licence", help="of the base model, where nobody here knows it")
    given = parser.parse_args()
    try:
        target = given.target
        write = {"models": model, "data/pairs": pairs}.get(str(target.parent))
        if write is None:
            raise ValueError(f"{target}: is neither models/<policy> nor data/pairs/<policy>.parquet")
        if given.out.exists():
            raise ValueError(f"{given.out} is there already; name a new folder")
        if str(target) not in integrity.recorded(Path()):
            raise ValueError(f"{target}: dvc.lock does not know it; make it with `dvc --wait-for-lock repro`")
        checks.state([target])
        checks.check_inputs([target])
        settings = params.load(Path("params.yaml"))
        base = settings.bases[settings.start_from.policy]
        write(target, given.out, settings, given.licence or cards.licence_of(base.model, base.revision))
    except (OSError, ValueError, Refusal) as error:
        sys.exit(f"export: {' '.join(str(error).split())}")
    print(f"export: {target} -> {given.out}, with its card README.md")


if __name__ == "__main__":
    main()
