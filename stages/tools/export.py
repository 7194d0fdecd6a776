"""Take a policy, or the pairs of an iteration, out of the pipeline, with a card that the run itself fills in.

    python -m stages.tools.export models/pi2 OUT
    python -m stages.tools.export data/pairs/pi1.parquet OUT
    python -m stages.tools.export models/pi2 OUT --licence apache-2.0      (where nobody here knows the base model's)

Reads   the policy or the pairs, which must be what dvc.lock recorded; params.yaml, dvc.lock, the accounts in metrics/
Writes  OUT, which must not be there yet: a model folder as transformers, vLLM and `huggingface_hub.upload_folder` take
        it, or a data set as `datasets.load_dataset` and TRL take it; in both README.md, the card
"""

import argparse
import importlib.metadata
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
from ruamel.yaml import YAML

from stages.guard import checks, integrity, params
from stages.tools import pin

TEMPLATES = Path(__file__).parent / "templates"
LEFT = ("text_contract.json",)
"""Files beside a model that only the pipeline reads."""
INTERVALS = ("gold_reward", "gain", "over_offline", "win_rate", "win_rate_over_offline", "judge_win_rate")
ALONE = ("proxy_reward", "proxy_win_rate", "kl", "tokens", "finished")


def licence_of(model: str, revision: str | None) -> str:
    """The base model's licence: of the wheel, of the folder's own card, or of the hub's.

    Raises ValueError where none of them says.
    """
    if model.endswith(".gguf"):
        wheel: Any = importlib.metadata.metadata(model.partition("/")[0].replace("_", "-"))
        found = wheel.get("License-Expression") or wheel.get("License")
    elif Path(model).is_dir():
        card = Path(model, "README.md")
        said = re.search(r"(?m)^license: *(\S+)", card.read_text(encoding="utf-8")) if card.exists() else None
        found = said[1] if said else None
    else:
        found = pin.asked(model, "model", revision).licence if pin.is_on_a_hub(model) else None
    if not found:
        raise ValueError(f"nobody here knows the licence of {model}; give it: --licence apache-2.0")
    return found.lower()


def makers(target: Path) -> list[tuple[str, str]]:
    """Every stage behind an output, the last one first: its name and its command, by dvc.lock."""
    stages = integrity.locked_stages(Path())
    made_by = {out["path"]: name for name, stage in stages.items() for out in stage.get("outs", [])}
    found, queue = {}, [str(target)]
    while queue:
        path = queue.pop(0)
        name = made_by.get(path) or made_by.get(str(Path(path).parent))
        if name and name not in found:
            found[name] = stages[name]["cmd"]
            queue += [dep["path"] for dep in stages[name].get("deps", [])]
    return list(found.items())


def lineage(target: Path) -> str:
    """The commit, the output's hash, and every stage behind it, as Markdown."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True).stdout.strip()
    more = ", and uncommitted changes" if changed else ""
    about = (
        f"`{target}`, md5 {integrity.recorded(Path())[str(target)]} in `dvc.lock`, at commit {commit or 'none'}{more}."
    )
    rows = [f"| `{name}` | `{command}` |" for name, command in makers(target)]
    return "\n".join([about, "", "| stage | command |", "|---|---|", *rows])


def in_yaml(tree: Any) -> str:
    text = io.StringIO()
    YAML().dump(tree, text)
    return text.getvalue().rstrip()


def account(name: str, facts: dict[str, Any]) -> str:
    """Rows in, rows out and drops by name, in a line."""
    drops = {rule: count for rule, count in facts.get("drops", {}).items() if count}
    return f"{name}: {facts['rows_in']:,} rows in, {facts['rows_out']:,} out, drops {drops or 'none'}"


def data_table() -> str:
    """Where every set of preferences came from."""
    rows = ["| set | data set | revision | licence | pairs kept |", "|---|---|---|---|---:|"]
    for name, fact in json.loads(Path("metrics/data.json").read_text(encoding="utf-8")).items():
        shown = [fact["dataset"], fact["revision"] or "in git", fact["licence"] or "the repository's"]
        rows.append(f"| {name} | {' | '.join(shown)} | {fact['pairs_kept']:,} |")
    return "\n".join(rows)


def results(policy: dict[str, Any]) -> dict[str, Any]:
    """The test numbers, with their intervals where there are some."""
    test, rows = policy["test"], []
    for name in (*INTERVALS, *ALONE):
        if name in test:
            interval = test.get(f"{name}_interval")
            shown = f"[{interval[0]}, {interval[1]}]" if interval else ""
            rows.append({"name": name.replace("_", " "), "value": test[name], "interval": shown})
    return {"prompts": test["prompts"], "answers": test["answers"], "rows": rows}


def render(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES, encoding="utf-8"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, of the run's own words
    )
    return environment.get_template(template).render(**values)


def base_of(settings: params.Params) -> dict[str, Any]:
    entry = settings.bases[settings.start_from.policy]
    return {"model": entry.model, "revision": entry.revision, "hub": pin.is_on_a_hub(entry.model)}


def model(folder: Path, out: Path, settings: params.Params, licence: str) -> None:
    """A policy and its card."""
    known = Path("metrics/policy") / f"{folder.name}.json"
    policy = json.loads(known.read_text(encoding="utf-8"))[folder.name] if known.exists() else {}
    loss, beta = "+".join(settings.dpo.loss), settings.dpo.beta
    trained = f"A policy of iterative preference optimisation ({loss}, beta {beta}) against the fixed reference pi0."
    made = trained if "dpo" in policy else "A policy before any preference optimisation."
    facts = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    sections = ("seed", "sft", "rank", "generate", "dpo") if "dpo" in policy else ("seed", "sft")
    card = render(
        "model_card.md.jinja",
        name=folder.name,
        licence=licence,
        base=base_of(settings),
        made=made,
        end_of_turn=facts["eos_token"],
        dtype=settings.dtype,
        results=results(policy) if policy else None,
        confidence=round(100 * settings.evaluate.confidence),
        data_table=data_table(),
        accounts=[account(name, fact) for name, fact in policy.items() if "rows_in" in fact],
        recipe=in_yaml(settings.model_dump(include=set(sections))),
        lineage=lineage(folder),
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
    card = render(
        "data_card.md.jinja",
        name=f"pairs of {file.stem}",
        licence=licence,
        rows=f"{len(table):,}",
        policy=file.stem,
        scorer=settings.rank.scorer,
        columns=", ".join(f"`{name}`" for name in more),
        prompts=settings.prompts.raw,
        base=base_of(settings),
        account=account("prompts to pairs", facts),
        recipe=in_yaml(settings.model_dump(include={"seed", "generate", "rank"})),
        lineage=lineage(file),
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
        write(target, given.out, settings, given.licence or licence_of(base.model, base.revision))
    except (OSError, ValueError, checks.Refusal) as error:
        sys.exit(f"export: {' '.join(str(error).split())}")
    print(f"export: {target} -> {given.out}, with its card README.md")


if __name__ == "__main__":
    main()
