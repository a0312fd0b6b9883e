"""Shared by the tests of HTML pages: hostile texts, what a page holds."""

import base64
import gzip
import json
from html.parser import HTMLParser

HOSTILE = [
    "</script><script>document.title = 'broken'</script>",
    "<!-- <script>",
    "<img src=x onerror=\"document.title = 'broken'\">",
    "]]>&lt;",
    "a\u2028b\u2029c",
    "half \ud83d of an emoji",
    "\x00\x1b[31m",
    "@DATA@ @SCRIPT@",
    "\u202eright to left\u202c",
    "",
    "javascript:alert(1)",
    "x" * 3000,
]


class Elements(HTMLParser):
    """All tags, and the text of each script."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.scripts = [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, tuple(attributes)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, text):
        if self.lasttag == "script" and text.strip():
            self.scripts[-1] += text


def unpacked(html):
    """The table of contents and the items that a page holds."""
    packed = html.split(b'id="data">')[1].split(b"<")[0]
    contents, *items = map(
        json.loads,
        gzip.decompress(base64.b64decode(packed, validate=True)).decode("ascii").splitlines(),
    )
    return contents, items
