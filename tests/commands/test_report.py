"""dl-lab report: its two files hold the measurements, need no other file and are well-formed."""

from __future__ import annotations

import json
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
    return ElementTree.fromstring(html[html.index("<body>") : html.index("</html>")])


def test_measured_figures_stand_beside_published_ones(report):
    for text in report:
        assert "0.760 ± 0.010" in text
        assert "Best by highest mean val/accuracy: lr=0.75." in text
        assert "1 failed" in text
        assert "| digits (full)" in text or "- Data: digits (full)" in text or "digits (full)</dd>" in text
        assert "dl-lab -m optimizer.lr=..." in text
    body = tree(report[0])
    rows = [["".join(cell.itertext()) for cell in row] for row in body.iter("tr")]
    assert ["lr=0.75", "test/accuracy", "0.7500", "at least 0.7000 (tolerance 0.01)", "yes"] in rows
    assert ["lr=0.5", "test/accuracy", "0.5000", "at least 0.7000 (tolerance 0.01)", "no"] in rows
    assert "a book &lt;1>" in report[0] or "a book &lt;1&gt;" in report[0]


def test_the_report_needs_no_other_file(report):
    html = report[0]
    assert not re.search(r"<link|src=(?!'data:)|@import|url\(|https?://|fetch|XMLHttp", html)
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_the_curves_have_a_text_for_screen_readers(report):
    drawings = [svg for svg in tree(report[0]).iter("svg") if "over the epochs" in (svg.get("aria-label") or "")]
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


def test_an_empty_folder_and_an_unknown_name_are_one_sentence(command, make_sweep, tmp_path):
    make_sweep({(0.5, 0): 0.5})
    (tmp_path / "empty").mkdir()
    assert "empty is not a run's folder" in command("report", "empty")[2]
    assert "No run 'nothing'" in command("report", "nothing")[2]
    (tmp_path / "file").touch()
    assert "--to file is a file, not a folder" in command("report", "abcd", "--to", "file")[2]
    assert "Cannot make the folder file/in: Not a directory." in command("report", "abcd", "--to", "file/in")[2]
    assert command("report", "abcd", "--to", "new/folder")[0] == 0
    assert (tmp_path / "new" / "folder" / "report.html").exists()


def texts(element: ElementTree.Element) -> str:
    return "".join(element.itertext())


def main_table(html: str) -> list[dict[str, str]]:
    """The rows of the first table: title of the column -> text."""
    table = next(tree(html).iter("table"))
    titles = [texts(cell) for cell in table.iter("th")]
    return [dict(zip(titles, map(texts, row), strict=True)) for row in table.find("tbody")]


def test_the_best_is_marked_only_where_the_seeds_can_tell(command, make_sweep):
    folder = make_sweep(GRID)
    assert command("report", "last")[0] == 0
    rows = main_table((folder / "report.html").read_text())
    measured = ["val/accuracy", "test/accuracy", "95 % interval of test/accuracy"]
    assert list(rows[0]) == ["setting", "n", *measured, "parameters", "time of a job"]
    assert (rows[0]["parameters"], rows[0]["time of a job"]) == ("1,650", "8s")
    assert [row["setting"] for row in rows] == ["lr=0.75 best", "lr=0.5", "lr=0.25"]
    assert "**lr=0.75**" in (folder / "report.md").read_text()


@pytest.mark.parametrize("sizes", [(1650,), (1650, 2400, 900)])
def test_parameters_and_time_are_shown_where_the_settings_differ_in_size(command, make_sweep, sizes):
    folder = make_sweep(GRID)
    for number, summary in enumerate(sorted(folder.glob("*/summary.json"))):
        size = sizes[number // 3 % len(sizes)]
        summary.write_text(json.dumps(json.loads(summary.read_text()) | {"parameters": size}))
    assert command("report", "last")[0] == 0
    table = next(tree((folder / "report.html").read_text()).iter("table"))
    asked = [texts(cell) for cell in table.iter("th") if "on-request" in cell.get("class", "")]
    assert asked == (["parameters", "time of a job"] if len(sizes) == 1 else [])


def test_no_setting_is_marked_where_the_seeds_cannot_tell(command, make_sweep):
    values = {(0.5, 0): 0.70, (0.5, 1): 0.80, (0.25, 0): 0.75, (0.25, 1): 0.74}
    folder = make_sweep(values)
    assert command("report", "last")[0] == 0
    text = (folder / "report.html").read_text()
    assert all("best" not in row["setting"] for row in main_table(text))
    assert "these runs cannot tell lr=0.5 from lr=0.25" in text


def test_one_diverged_job_leaves_the_others_readable(command, make_sweep):
    folder = make_sweep({(0.5, 0): 0.7, (0.25, 0): 0.6, (9.0, 0): 1e30})
    assert command("report", "last")[0] == 0
    for svg in tree((folder / "report.html").read_text()).iter("svg"):
        for shape in svg.iter("circle"):
            assert -1 <= float(shape.get("cx")) <= 490


def test_a_single_run_has_a_page_too(command, make_run):
    folder = make_run(metrics={"train/loss": 0.5, "val/accuracy": 0.8, "test/accuracy": 0.75})
    assert command("report", "last")[0] == 0
    text = (folder / "report.html").read_text()
    assert ("test/accuracy", "0.7500") in [tuple(row.values()) for row in main_table(text)]
    assert "one run with one seed" in text
    assert f"dl-lab verify {folder.relative_to(folder.parents[2])}" in text
    assert "is a run" in command("report", "last", "--baseline", "lr=1")[2]


def test_two_experiments_are_two_sections(command, make_sweep):
    folder = make_sweep(GRID, experiments=("octmnist_cnn", "digits_softmax"))
    assert command("report", "last")[0] == 0
    headings = [texts(heading) for heading in tree((folder / "report.html").read_text()).iter("h2")]
    assert headings[:2] == ["octmnist_cnn", "digits_softmax"]


def test_without_torch(cost, make_sweep):
    make_sweep(GRID)
    spent = cost("report", "last")
    assert not {"torch", "hydra", "matplotlib"} & spent.modules
    assert len(spent.files) <= 100
    assert spent.processes == []
