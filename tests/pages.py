"""What a page would load, for the tests of pages."""

import re
from html.parser import HTMLParser

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
