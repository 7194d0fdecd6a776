"""Write params.yaml from a profile: the defaults of profiles/quickstart.yaml with another profile's numbers laid over
them.

    python -m stages.tools.profile smoke [dpo.beta=0.3 ...]
    python -m stages.tools.profile paper+mix1             (one over the other)

A profile is numbers only: every profile runs the same dvc.yaml and the same stages, and going back to an earlier one
costs a checkout.
"""

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.guard.params import check

PROFILES = Path(__file__).parents[1] / "profiles"
NAMED_BY_PEOPLE = ("bases", "benchmarks", "chats")
"""Mappings whose keys are names, which a profile adds to."""


def lay_over(base: Any, overlay: Mapping, whole: tuple[str, ...] = (), grows: bool = False) -> None:
    """Replace in `base`, in place, what `overlay` names, `whole` keys with all they hold; comments stay.

    Raises KeyError for a key that `base` lacks, unless it `grows`, as a mapping of models or benchmarks does.
    """
    for key, value in overlay.items():
        if key not in base and not grows:
            raise KeyError(f"the profile names {key!r}, which profiles/quickstart.yaml does not have; mend the profile")
        if isinstance(value, Mapping) and key not in whole and key in base:
            lay_over(base[key], value, whole, grows=key in NAMED_BY_PEOPLE)
        else:
            base[key] = value


def compose(profile: str = "quickstart", settings: list[str] = []) -> str:  # noqa: B006, never written to
    """The text of params.yaml for a profile, or several with + between, single `key=value` settings laid over it.

    Raises ParamsError, or ValueError for an unknown profile.
    """
    known = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    names = profile.split("+")
    if not set(names) <= set(known):
        raise ValueError(f"no profile {profile!r}; there are {', '.join(known)}")
    yaml = YAML()
    yaml.width = 200
    tree = yaml.load((PROFILES / "quickstart.yaml").read_text(encoding="utf-8"))
    for name in names:
        if name != "quickstart":
            overlay = yaml.load((PROFILES / f"{name}.yaml").read_text(encoding="utf-8"))
            lay_over(tree, overlay, whole=("mix", "set"))  # keys of one are names of sets, of the other a source's rule
    for setting in settings:
        key, _, value = setting.partition("=")
        parts, overlay = key.split("."), yaml.load(value)
        for part in reversed(parts):
            overlay = {part: overlay}
        lay_over(tree, overlay, whole=(parts[-1],))
    text = io.StringIO()
    yaml.dump(tree, text)
    composed = f"# profile: {profile}   (written by `python -m stages.tools.profile {profile}`)\n{text.getvalue()}"
    check(YAML(typ="safe", pure=True).load(composed), f"profile {profile}")
    return composed


def main() -> None:
    try:
        composed = compose(*sys.argv[1:2], settings=sys.argv[2:])
        Path("params.yaml").write_text(composed, encoding="utf-8")
    except (KeyError, ValueError) as error:
        sys.exit(f"profile: {error}")
    print(f"profile: params.yaml is now {' '.join(sys.argv[1:]) or 'quickstart'}; run `dvc --wait-for-lock repro`")


if __name__ == "__main__":
    main()
