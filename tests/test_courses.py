"""The page "If you take this course" and its notebooks: complete, runnable, executed."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest

import dl_lab
from dl_lab import configs
from dl_lab.configs import catalogue
from dl_lab.sweeps import start
from dl_lab.sweeps.expand import expand

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
OF_NO_COURSE = {"cifar_resnet9"}  # from the literature on fast training


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "docs"))
    return importlib.import_module("course_pages")


def test_every_experiment_answers_a_sentence_of_some_brief(pages):
    rows = [row for about in pages.courses().values() for row in about["rows"]]
    answered = {name for row in rows for name in pages.experiments_of(row["run"])}
    assert {entry.name for entry in catalogue.experiments()} - answered == OF_NO_COURSE


def test_every_command_is_right(pages):
    composer = configs.Composer()
    for about in pages.courses().values():
        for row in about["rows"]:
            words = row["run"].split()
            assert pages.experiments_of(row["run"]), row["run"]
            if words[0] == "-m":
                options = start.parse(words)
                grid = expand(composer, options.overrides, options.grid_flags)
                first, second, *_ = grid.jobs()
                assert first != second
                if not any(word.startswith("sweep=") for word in words):  # tests/test_ready_sweeps.py composes those
                    composer.compose([*grid.fixed, *first])
            elif any("=" in word for word in words[1:]):  # tests/test_experiments.py composes the experiments alone
                composer.compose(words)
            else:
                assert words[0] == "list" or words[0].startswith("experiment="), row["run"]


def test_the_page_has_every_course_and_a_status_for_every_sentence(pages):
    page = (ROOT / "docs" / "courses.md").read_text(encoding="utf-8")
    for name, about in pages.courses().items():
        assert f"## {about['title']}" in page
        assert f"<!-- made: course {name} -->" in page
        assert (ROOT / "docs" / about["notebook"]).exists()
        made = pages.table(name)
        for row in about["rows"]:
            (line,) = [one for one in made.splitlines() if one.startswith(f"| {row['asks']} |")]
            status = line.split(" | ")[-1].strip(" |")
            assert status


def test_the_status_says_what_the_tables_say(pages, monkeypatch):
    """A figure on full data within the tolerance, outside of it, on a part, and none."""
    results = importlib.import_module("result_pages")

    def measured(value, data="imdb (full)"):
        found = [results.Result("imdb_lstm", "", data, "10", {"test/accuracy": [value]}, {"test/accuracy": "0.82016"})]
        monkeypatch.setattr(pages, "_all_results", lambda: {"imdb_lstm": found})
        return pages.status("experiment=imdb_lstm")

    assert measured(0.815) == "met: test/accuracy 0.815 (published 0.8202)"
    assert measured(0.5).startswith("missed")
    assert measured(0.5, "imdb (part: 200 reviews)").startswith("measured on a part of the data")
    assert pages.status("experiment=imdb_gru") == "not measured at full length yet"
    assert pages.status("experiment=food_resnet50") == "not measured, for want of ImageNet weights"


def test_the_status_of_a_sweep_counts_its_measured_jobs(pages, monkeypatch):
    """Rows at other settings, of cut trainings and of another experiment do not count; own values need no override."""
    sweeps, results = importlib.import_module("sweep_results"), importlib.import_module("result_pages")
    both = [("val/loss", "0.3"), ("test/pca_64", "0.1"), ("test/loss", "0.2")]

    def measured(*runs):
        recorded = []
        for experiment, words, data, epochs, rows in runs:
            command = f"dl-lab threads=1 experiment={experiment} {words}".strip()
            shared = {"command": command, "experiment": experiment, "data": data, "epochs": epochs}
            recorded.append([{**shared, "metric": metric, "measured": value} for metric, value in rows])
        monkeypatch.setattr(results, "runs", lambda path: recorded if path.stem == "series" else [])
        sweeps._measured.cache_clear()
        return pages.status("-m sweep=vae_lr")

    full, other = "mnist (full)", [("test/loss", "0.4")]
    assert measured(("mnist_vae", "", full, "30", both)) == "1 of 3 jobs measured: test/loss 0.2 (`lr=0.001`)"
    assert measured(
        ("mnist_vae", "seed=1", full, "30", both),
        ("mnist_vae", "optimizer.lr=0.001", full, "30", other),
        ("mnist_vae", "optimizer.lr=3e-3", full, "30", other),
        ("mnist_vae", "optimizer.lr=3e-4", full, "2", other),
        ("mnist_vae", "optimizer.lr=0.1", full, "30", other),
        ("mnist_conv_vae", "optimizer.lr=3e-4", full, "30", other),
    ) == ("2 of 3 jobs measured: test/loss from 0.3 (`lr=0.001`) to 0.4 (`lr=0.003`)")
    assert measured(("mnist_vae", "", "mnist (copy: JPEG copy)", "30", both)).startswith(
        "1 of 3 jobs measured on a JPEG"
    )
    assert measured().startswith("its experiment: ")
    sweeps._measured.cache_clear()


def test_the_notebooks_are_five_and_keep_no_output():
    assert len(NOTEBOOKS) == 5
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs")
            assert cell.get("execution_count") is None


def quick_or_all(path: Path) -> object:
    """A case of the test: the notebooks that take longer than ten seconds are not run by default."""
    is_left_out = not path.stem.startswith("ist") and "DL_LAB_SLOW" not in os.environ
    skip = pytest.mark.skipif(is_left_out, reason="takes up to half a minute: DL_LAB_SLOW=1 runs every notebook")
    return pytest.param(path, id=path.stem, marks=skip)


@pytest.mark.parametrize("path", [quick_or_all(path) for path in NOTEBOOKS])
def test_a_notebook_trains(path, tmp_path, monkeypatch):
    """Every cell, in order, in an empty folder: in the smoke form that the notebook is written in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert "profile=smoke" in names["settings"]
    assert set(dl_lab.list_runs()["state"]) == {"done"}
    if path.stem == "ist_homework_1":
        assert min(names["accuracy"].values()) > 0.9
    if path.stem == "ist_homework_2":
        assert names["counts"] == [224_892, 224_892]
