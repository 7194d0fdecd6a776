"""Turn a resolution with uv's annotations into stages/guard/requires.yaml: which locked package requires which.

    uv pip compile ... --annotation-style line -o resolved && python -m stages.tools.requires resolved

A part of `make lock`. The resolver knows every package's requirements, also of those that this machine does not
install, with the markers of the platform that the lock is for; so the file is the same wherever it is written.
"""

import re
import sys
from pathlib import Path

REQUIRES = Path("stages/guard/requires.yaml")
HEADER = "# What each locked package requires, of the other locked ones; by `make lock`, stages/tools/requires.py\n"
LINE = re.compile(r"(?P<name>[a-z0-9-]+)==\S+\s+# via (?P<via>.+)")


def turned(resolved: str) -> dict[str, list[str]]:
    """Package to what it requires, from lines of `package==version  # via who requires it, ...`."""
    found: dict[str, list[str]] = {}
    for line in filter(None, map(LINE.match, resolved.splitlines())):
        for package in line["via"].split(", "):
            if re.fullmatch(r"[a-z0-9][a-z0-9-]*", package):  # not a file or an option of uv
                found.setdefault(package, []).append(line["name"])
    return found


def main() -> None:
    found = turned(Path(sys.argv[1]).read_text(encoding="utf-8"))
    lines = [f"{package}: {' '.join(sorted(found[package]))}\n" for package in sorted(found)]
    REQUIRES.write_text(HEADER + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
