"""What a page is made of, for the tests of pages."""

import re
from html.parser import HTMLParser


class Outline(HTMLParser):
    """Reads what a page is made of."""

    def __init__(self, text: str) -> None:
        """Read it."""
        super().__init__()
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep headings, ids and addresses."""
        if re.fullmatch(r"h\d", tag):
            self.headings.append(int(tag[1]))
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            elif name in ("href", "src"):
                self.addresses.append(str(value))

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.words += data
