"""One HTML file to read texts in: a list with filters, and the chosen item. It loads nothing.

What models and data sets wrote is hostile text. The page holds it as base64 of gzipped JSON lines,
letters that no markup can be made of. Its script shows it as text nodes only, and its
Content-Security-Policy allows that one script, by its hash, and no connection at all.
"""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from common.core.files import write_atomic

TEMPLATE = Path(__file__).with_suffix(".html")


def write_page(path: Path, view: Path, records: Iterable[dict]):
    """Write the page. Equal input gives equal bytes.

    view: the JavaScript of what is particular to this kind of page; page.html names its functions.
    records: first the table of contents, with a "title", then the items of the list, each with its
    "question".
    """
    template = TEMPLATE.read_text(encoding="utf-8")
    template = template.replace("@VIEW@", view.read_text(encoding="utf-8"))
    script = re.findall("<script>(.*?)</script>", template, re.DOTALL)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    head, tail = template.replace("@SCRIPT@", digest).split("@DATA@")
    write_atomic(path, [head, _pack(records), tail])


def _pack(records):
    """Return records as JSON lines, gzipped without a date, in base64.

    They are ASCII throughout, so that lone surrogates come back as they were.
    """
    lines = []
    for record in records:
        lines.append(json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n")
    packed = gzip.compress("".join(lines).encode(), compresslevel=6, mtime=0)
    return base64.b64encode(packed).decode()
