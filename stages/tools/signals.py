"""Train, ask and measure seven preference signals side by side, and print the table.

    python -m stages.tools.signals          (or: make signals)

For the time of the run params.yaml has them in use; it is put back as it was, so that afterwards nothing is a stage
that you did not ask for. The results stay: metrics/signals.md and .html in git, the scores in the cache.
"""

import sys
from pathlib import Path
from typing import Any

from stages.guard import agreement
from stages.tools import in_use


def seven(tree: Any) -> None:
    """Put the seven signals in use, in the tree of params.yaml."""
    for name in agreement.SIDE_BY_SIDE:
        tree["signals"][name] = [name]
    tree["signals"]["side_by_side"] = ["all"]


def main() -> None:
    try:
        with in_use.in_use(seven):
            code = in_use.repro(["signal_report@all"])
    except ValueError as error:
        sys.exit(f"signals: {error}")
    if code:
        sys.exit(f"signals: dvc repro ended with {code}; its own message stands above")
    print(Path("metrics/signals.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
