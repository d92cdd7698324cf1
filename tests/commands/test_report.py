"""dl-lab report: the two files say what was measured, are whole in themselves, and are well-formed."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

GRID = {(lr, seed): lr + seed / 100 for lr in (0.5, 0.25, 0.75) for seed in (0, 1, 2)}
REFERENCE = {"test/accuracy": {"value": 0.7, "tolerance": 0.01, "source": "a book <1>"}}


@pytest.fixture
def report(command, make_sweep):
    folder = make_sweep({**GRID, (0.25, 2): "failed"}, REFERENCE)
    status, out, _ = command("report", "last", "--baseline", "lr=0.5")
    assert status == 0
    assert out.split() == [f"outputs/{(folder / name).relative_to(folder.parents[2])}" for name in NAMES]
    return [(folder / name).read_text() for name in NAMES]


NAMES = ("report.html", "report.md")


def tree(html: str) -> ElementTree.Element:
    body = html[html.index("<body>") : html.index("</html>")]
    return ElementTree.fromstring(body.replace("class=number", "class='number'"))


def test_measured_beside_published(report):
    for text in report:
        assert "0.760 ± 0.010" in text
        assert "Best by highest mean val/accuracy: lr=0.75." in text
        assert "1 failed" in text
        assert "dl-lab -m optimizer.lr=..." in text
    body = tree(report[0])
    rows = [["".join(cell.itertext()) for cell in row] for row in body.iter("tr")]
    assert ["lr=0.75", "test/accuracy", "0.7500", "at least 0.7000", "0.0100", "yes"] in rows
    assert ["lr=0.5", "test/accuracy", "0.5000", "at least 0.7000", "0.0100", "no"] in rows
    assert "a book &lt;1>" in report[0] or "a book &lt;1&gt;" in report[0]


def test_whole_in_itself(report):
    html = report[0]
    assert not re.search(r"<script|<link|src=|@import|url\(|https?://", html)
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_a_curve_for_each_setting_with_words_for_who_cannot_see_it(report):
    drawings = [svg for svg in tree(report[0]).iter("svg") if svg.get("role") == "img"]
    assert len(drawings) == 2  # val/accuracy, train/loss
    for svg in drawings:
        assert len(list(svg.iter("polyline"))) == 3
        assert "over the epochs. After the last epoch: lr=0.75: " in svg.get("aria-label")
        points = [float(v) for line in svg.iter("polyline") for v in re.split("[ ,]", line.get("points"))]
        assert min(points) >= 0
    top = float(next(drawings[0].iter("polyline")).get("points").split()[-1].split(",")[1])
    last = [float(line.get("points").split()[-1].split(",")[1]) for line in drawings[0].iter("polyline")]
    assert last == sorted(last), "the best setting is not the highest"
    assert top == last[0]


def test_tables_have_headers_and_captions(report):
    for table in tree(report[0]).iter("table"):
        assert table.find("caption").text
        assert all(cell.get("scope") == "col" and cell.text for cell in table.iter("th"))


def test_an_empty_folder_and_no_sweep(command, make_sweep, tmp_path):
    make_sweep({(0.5, 0): 0.5})
    (tmp_path / "empty").mkdir()
    assert "it has no sweep.yaml" in command("report", "empty")[2]
    assert "--to nowhere is not a folder" in command("report", "abcd", "--to", "nowhere")[2]
    assert command("report", "abcd", "--to", "empty")[0] == 0


def test_without_torch(cost, make_sweep):
    make_sweep(GRID)
    seconds, modules = cost("report", "last")
    assert seconds < 1
    assert not {"torch", "hydra", "matplotlib"} & modules
