"""What a page would load, and how wide a browser draws it, for the tests of pages."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

LOADING = {"src", "srcset", "href", "xlink:href", "data", "action", "poster"}


class Loads(HTMLParser):
    """Collects what tags and styles name that does not stand in the page itself; text is no such thing."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.style = tag == "style"
        self.found += [f"<{tag}>"] if tag in ("script", "link", "iframe") else []
        for name, value in attrs:
            self.found += [value or ""] if name in LOADING and not (value or "").startswith("#") else []
            self.found += styled(value or "")

    def handle_data(self, data: str) -> None:
        self.found += styled(data) if self.style else []

    def handle_endtag(self, tag: str) -> None:
        self.style = False


def styled(css: str) -> list[str]:
    return re.findall(r"url\((?!['\"]?#)[^)]*\)|@import[^;]*", css)


def loaded(page: str) -> list[str]:
    """What the page asks for from elsewhere."""
    parser = Loads()
    parser.feed(page)
    return parser.found


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NO_BROWSER = "no chromium here; `apt-get install chromium` brings one"
WIDTHS = (390, 1280)
"""Of a phone and of a desk, in pixels."""
FRAMES = "".join(f'<iframe src="page.html" style="width: {width}px"></iframe>' for width in WIDTHS)
MEASURE = """<!doctype html><meta charset="utf-8"><body>%s
<script>onload = () => { document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => [
  frame.contentDocument.documentElement.scrollWidth, frame.clientWidth,
  frame.contentWindow.performance.getEntriesByType("resource").length])) }</script>
<style>iframe { border: 0; height: 600px; display: block }</style>"""


def measured(page: str, folder: Path) -> list[list[int]]:
    """For each of WIDTHS: how wide the page is drawn, how wide it may be, and how often it asks a network."""
    (folder / "page.html").write_text(page, encoding="utf-8")
    (folder / "measure.html").write_text(MEASURE % FRAMES, encoding="utf-8")
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command = [str(BROWSER), *quiet, "--allow-file-access-from-files", "--dump-dom", f"file://{folder}/measure.html"]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return json.loads(dom.partition("<title>")[2].partition("</title>")[0])
