"""The measured table of docs/tables.md. tests/test_docs.py runs the blocks of the page."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tables.md"


def test_the_page_has_a_measured_table():
    text = PAGE.read_text(encoding="utf-8")
    for name in ("diabetes", "breast cancer", "wine"):
        assert re.search(rf"\| {name} \| \d+ \|", text)
    assert "Command: `python scripts/benchmarks/tables.py`, seed 0" in text
