"""What a card says of a policy or of pairs: where they come from, what they were made of, and how good they are; all
of it read from the run itself.

Reads   params.yaml, dvc.lock, the accounts in metrics/; git, the wheel's metadata, a folder's card or the hub's
"""

import importlib.metadata
import io
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.evaluation import html_pages
from stages.guard import integrity, params
from stages.tools import pin

TEMPLATES = Path(__file__).parent / "templates"
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


def card(template: str, **values: Any) -> str:
    """The card, of Markdown: nothing is escaped."""
    return html_pages.render(template, TEMPLATES, **values)


def base_of(settings: params.Params) -> dict[str, Any]:
    entry = settings.bases[settings.start_from.policy]
    return {"model": entry.model, "revision": entry.revision, "hub": pin.is_on_a_hub(entry.model)}
