"""A page as a browser takes it apart, for tests."""

from __future__ import annotations

import html
import html.parser


class Page(html.parser.HTMLParser):
    """Text by element, and every attribute, of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts = 0
        self.words: list[str] = []
        self._raw = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        self.scripts += tag == "script"
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, data: str) -> None:
        if not self._raw and data.strip():
            self.words.append(data.strip())
