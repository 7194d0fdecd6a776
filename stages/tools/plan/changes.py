"""Which stages a run would execute, and why: params.yaml, dvc.yaml, the code and the files against dvc.lock.

`dvc status` tells the same but for what only follows, takes longer, and refuses while a run is going on. Files over
SMALL are compared by their sizes where another stage wrote them; raw data are hashed, once for each state of the
files.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from stages.guard import fingerprint, integrity
from stages.tools.plan.graph import VERDICTS, Stage, makers

SMALL = 4 * 2**20  # bytes that are hashed each time
STAMPS = Path(".scratch/planned")


class Verdict(NamedTuple):
    """Why a stage would run: reasons of its own, or inputs that would be made anew. Where `restored`, DVC has all that
    is missing in its cache and brings it.
    """

    own: list[str]
    follows: list[str]
    restored: bool


class Now:
    """The workspace as it is: leaves of params.yaml, keys of the code, digests of files."""

    def __init__(self, root: Path, settings: dict[str, Any], recorded: dict[str, dict], pulled: bool) -> None:
        self.root, self.settings, self.recorded, self.pulled = root, settings, recorded, pulled

    def setting(self, key: str) -> Any:
        value: Any = self.settings
        for part in key.split("."):
            value = value[part]
        return value

    def code_key(self, module: str) -> str:
        """As `fingerprint` would write it; of code that it has seen, as it wrote it."""
        if self.code_is_recorded():
            return fingerprint.read(self.root / "code.lock.yaml").get(module.replace(".", "_"), "")
        return fingerprint.key(module, self.root)

    @cache  # noqa: B019, one of them lives as long as the command
    def code_is_recorded(self) -> bool:
        recorded = self.recorded.get("fingerprint")
        return bool(recorded) and all(self.digest(dep["path"]) == dep["md5"] for dep in recorded["deps"])

    @cache  # noqa: B019
    def digest(self, path: str) -> str | None:
        """DVC's hash of a file or folder; None where there is none."""
        file = self.root / path
        if not file.exists():
            return None
        if size(file) <= SMALL:
            return integrity.digest(file)
        state = str(sorted((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files(file)))
        return stamped(self.root / STAMPS / path.replace("/", "%"), state, lambda: integrity.digest(file))


def files(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in files(path))


def stamped(stamp: Path, state: str, digest: Callable[[], str]) -> str:
    """The digest that an earlier plan found in this state of the files, or a new one."""
    known, _, of = stamp.read_text(encoding="utf-8").partition("\n") if stamp.exists() else ("", "", "")
    if of != state:
        known = digest()
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(f"{known}\n{state}", encoding="utf-8")
    return known


def verdicts(stages: list[Stage], now: Now) -> dict[str, Verdict]:
    """The stages that would run, by name, in order."""
    behind, found, anew = makers(stages), {}, set()
    for stage in stages:
        own, missing = reasons(stage, now, behind), gone(stage, now)
        follows = [dep for dep in stage.deps if not dep.startswith(VERDICTS) and remade(dep, behind, anew)]
        if own or follows or missing:
            restored = not own and not follows and stage.cached and in_cache(stage, now)
            found[stage.name] = Verdict([*own, *missing], follows, restored)
            if not restored:
                anew.add(stage.name)
    return found


def remade(dep: str, behind: dict[str, list[Stage]], anew: set[str]) -> bool:
    return any(maker.name in anew for maker in behind.get(dep, []))


def reasons(stage: Stage, now: Now, behind: dict[str, list[Stage]]) -> list[str]:
    """What has changed of the command, the params, the code and the inputs since the stage was recorded."""
    was = now.recorded.get(stage.name)
    if was is None:
        return ["never ran here"]
    changed = ["its command in dvc.yaml"] if was["cmd"] != stage.command else []
    changed += [told for key in stage.tracked.get("params.yaml", []) if (told := param(key, was, now))]
    changed += [told for key in stage.tracked.get("code.lock.yaml", []) if (told := code(key, stage, was, now))]
    known = {dep["path"]: dep["md5"] for dep in was.get("deps", [])}
    return changed + [told for dep in stage.deps if (told := read(dep, known, now, behind))]


def param(key: str, was: dict, now: Now) -> str:
    before, value = was.get("params", {}).get("params.yaml", {}), now.setting(key)
    if key not in before:
        return f"{key} is new, {short(value)}"
    return "" if same(before[key], value) else changed(key, before[key], value)


def changed(key: str, before: Any, value: Any) -> str:
    """The first leaf that differs, from what to what."""
    if isinstance(value, dict) and isinstance(before, dict):
        name = next((n for n in value if not same(before.get(n), value[n])), None)
        if name is not None and name in before:
            return changed(f"{key}.{name}", before[name], value[name])
    if isinstance(value, list) and isinstance(before, list) and len(value) == len(before):
        place = next(i for i, (one, other) in enumerate(zip(before, value, strict=True)) if not same(one, other))
        return changed(f"{key}[{place}]", before[place], value[place])
    if isinstance(value, list) and isinstance(before, list) and len(value) != len(before):
        return f"{key}: {len(before)} entries -> {len(value)}"
    return f"{key} {short(before)} -> {short(value)}"


def code(key: str, stage: Stage, was: dict, now: Now) -> str:
    before, value = was.get("params", {}).get("code.lock.yaml", {}).get(key, "none"), now.code_key(stage.module)
    return "" if before == value else f"code {key} {before[:6]} -> {value[:6]}"


def read(dep: str, known: dict[str, str], now: Now, behind: dict[str, list[Stage]]) -> str:
    """What is to be said of an input: raw data and folders that gather by their bytes, an output by its record."""
    if dep not in known:
        return f"reads {dep} now"
    made = [out["md5"] for maker in behind.get(dep, []) for out in outs(maker, now) if out["path"] == dep]
    value = made[0] if made else now.digest(dep)
    if value is None:
        return f"{dep} is missing"
    return "" if value == known[dep] else f"{dep} has changed"


def outs(stage: Stage, now: Now) -> list[dict[str, Any]]:
    return now.recorded.get(stage.name, {}).get("outs", [])


def gone(stage: Stage, now: Now) -> list[str]:
    """Outputs that are missing, or not as they were recorded; none for a stage that was never recorded."""
    found = []
    for out in outs(stage, now):
        path = now.root / out["path"]
        if not path.exists():
            found += [] if now.pulled else [f"{out['path']} is missing"]
        elif size(path) != int(out["size"]) or (size(path) <= SMALL and now.digest(out["path"]) != out["md5"]):
            found.append(f"{out['path']} is not as recorded")
    return found


def in_cache(stage: Stage, now: Now) -> bool:
    digests = [out["md5"] for out in outs(stage, now)]
    return all((now.root / integrity.CACHE / digest[:2] / digest[2:]).exists() for digest in digests)


def same(text: Any, value: Any) -> bool:
    """Whether a value of dvc.lock, whose leaves are read as text, is that of params.yaml."""
    if isinstance(value, dict):
        return (
            isinstance(text, dict) and text.keys() == value.keys() and all(same(text[k], v) for k, v in value.items())
        )
    if isinstance(value, list):
        is_list = isinstance(text, list) and len(text) == len(value)
        return is_list and all(same(one, other) for one, other in zip(text, value, strict=True))
    if not isinstance(text, str):
        return False
    if value is None or isinstance(value, bool):
        return text.lower() in ({None: ("", "null", "~")} | {v: (str(v).lower(),) for v in (True, False)})[value]
    if isinstance(value, int | float):
        return is_number(text) and float(text) == value
    return text == value


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def short(value: Any) -> str:
    """A value on a few columns."""
    text = "null" if value is None else " ".join(str(value).split())
    return text if len(text) <= 20 else f"{text[:17]}..."
