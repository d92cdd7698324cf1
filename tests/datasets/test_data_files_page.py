"""The table of docs/data_files.md is made from the tests: each row is a test that carries the mark `data_file`.

    @pytest.mark.data_file("Images", kind="16-bit PNG", loader="image_folder", outcome="scaled by 65,535")
    def test_...(tmp_path): ...

The four values are literal strings. A test function, or a `pytest.param(..., marks=...)`, may carry several marks.
`python tests/datasets/test_data_files_page.py` writes the table into the page again.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "data_files.md"
START = "<!-- The table below is written by tests/datasets/test_data_files_page.py. -->\n"
END = "<!-- End of the table. -->\n"
SECTIONS = ("Images", "Arrays", "Archives and downloads", "Links and folders", "Tables", "Series", "Text", "Speech")


@dataclass(frozen=True, order=True)
class Row:
    """One row of the table."""

    section: str
    loader: str
    kind: str
    outcome: str
    test: str


def rows_of(path: Path) -> Iterator[Row]:
    """The rows that the tests of one file make."""
    text = path.read_text(encoding="utf-8")
    if "data_file(" not in text:
        return
    for function in ast.parse(text).body:
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.data_file":
                yield row_of(node, path, function.name)


def row_of(mark: ast.Call, path: Path, test: str) -> Row:
    (section,) = [ast.literal_eval(argument) for argument in mark.args]
    values = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in mark.keywords}
    return Row(section, values["loader"], values["kind"], values["outcome"], f"{path.stem}::{test}")


def all_rows() -> list[Row]:
    return sorted(
        row for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__) for row in rows_of(path)
    )


def table(rows: list[Row]) -> str:
    """Markdown: a heading and a table for each section."""
    lines: list[str] = []
    for section in SECTIONS:
        own = [row for row in rows if row.section == section]
        if own:
            lines += [f"### {section}", "", "| kind of file | loader | what happens |", "|---|---|---|"]
            lines += [f"| {row.kind} | `{row.loader}` | {row.outcome} |" for row in own]
            lines.append("")
    return "\n".join(lines) + "\n"


def page_with(content: str) -> str:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{content}{END}{after}"


def test_the_page_has_the_rows_of_the_tests():
    expected = page_with(table(all_rows()))
    assert PAGE.read_text(encoding="utf-8") == expected, f"run: python {Path(__file__).relative_to(ROOT)}"


def test_rows_are_complete_and_unique():
    rows = all_rows()
    assert {row.section for row in rows} <= set(SECTIONS)
    keys = [(row.section, row.loader, row.kind) for row in rows]
    assert len(set(keys)) == len(keys), "two tests make the same row"


def test_a_mark_makes_a_row(tmp_path):
    """The reader of marks finds them on functions and on parameters."""
    path = tmp_path / "test_it.py"
    mark = 'pytest.mark.data_file("Images", kind="a", loader="b", outcome="c")'
    path.write_text(f"@{mark}\ndef test_one(): ...\n\n@x([y(1, marks={mark})])\ndef test_two(): ...\n")
    assert [row.test for row in rows_of(path)] == ["test_it::test_one", "test_it::test_two"]
    with pytest.raises(KeyError):
        path.write_text(f"@{mark.replace('kind=', 'sort=')}\ndef test_one(): ...\n")
        list(rows_of(path))


if __name__ == "__main__":
    PAGE.write_text(page_with(table(all_rows())), encoding="utf-8")
