"""Train, ask and measure seven preference signals side by side, and print the table.

    python -m stages.tools.signals          (or: make signals)

For the time of the run params.yaml has them in use; it is put back as it was, so that afterwards nothing is a stage
that you did not ask for. The results stay: metrics/signals.md and .html in git, the scores in the cache.
"""

import io
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from stages.guard import agreement, params

PARAMS = Path("params.yaml")


def put_in_use(text: str) -> str:
    """The text of params.yaml with the seven signals in use; comments stay."""
    yaml = YAML()
    yaml.width = 200
    tree, out = yaml.load(text), io.StringIO()
    for name in agreement.SIDE_BY_SIDE:
        tree["signals"][name] = [name]
    tree["signals"]["side_by_side"] = ["all"]
    yaml.dump(tree, out)
    return out.getvalue()


def main() -> None:
    before = PARAMS.read_text(encoding="utf-8")
    try:
        params.load(PARAMS)
        PARAMS.write_text(put_in_use(before), encoding="utf-8")
        code = subprocess.run(["dvc", "--wait-for-lock", "repro", "--quiet", "signal_report@all"]).returncode
    except ValueError as error:
        sys.exit(f"signals: {error}")
    finally:
        PARAMS.write_text(before, encoding="utf-8")
    if code:
        sys.exit(f"signals: dvc repro ended with {code}; its own message stands above")
    print(Path("metrics/signals.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
