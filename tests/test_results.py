"""Results: what `scripts/results.py run` does with what is missing, and what the pages make of several seeds."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

from dl_lab.configs import catalogue

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"


@pytest.fixture
def script(monkeypatch):
    """A module of scripts/ or scripts/docs/ by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "docs"))
    return importlib.import_module


def row(experiment="imdb_rnn", data="imdb (full)", metric="test/accuracy", measured=0.7, seed=42, more="", **other):
    about = {"id": "", "experiment": experiment, "data": data, "metric": metric, "measured": measured}
    about |= {"published": 0.69496, "source": "a", "seed": seed, "epochs": 10, "seconds": 60, "hardware": "h"}
    command = f"dl-lab experiment={experiment} seed={seed} threads=1{more}"
    return about | {"date": "2026-11-29", "command": command} | other


@pytest.fixture
def pages(script, monkeypatch, tmp_path):
    """result_pages on a folder of its own, and a function that writes its table `area`."""
    module = script("result_pages")
    monkeypatch.setattr(module, "RESULTS", tmp_path)

    def write(*rows):
        script("results").write(tmp_path / "area.csv", list(rows))
        return module

    return write


def test_seeds_are_one_row_with_mean_and_spread(pages):
    measured = {42: 0.65, 43: 0.70, 44: 0.75}
    made = pages(*(row(seed=seed, measured=value) for seed, value in measured.items())).table("area")
    assert "| `imdb_rnn` | imdb, full | test/accuracy | 0.7 ± 0.05 | 3 | 0.695 | yes | 10 |" in made
    assert made.count("imdb_rnn") == 1


def test_a_missed_figure_says_no(pages):
    assert "| 0.6 | 1 | 0.695 | no | 10 |" in pages(row(measured=0.6)).table("area")


@pytest.mark.parametrize("data", ["imdb (part: 200 of 50,000 reviews)", "mnist (full)"])
def test_a_part_or_another_data_set_is_not_judged(pages, data):
    published = "" if data.startswith("mnist") else 0.69496  # `record` gives another data set no published figure
    assert re.search(
        r"\| 0\.9 \| 1 \| [0-9.]* \|  \| 10 \|", pages(row(data=data, measured=0.9, published=published)).table("area")
    )


def test_a_copy_is_called_a_copy(pages):
    made = pages(row("cifar_cnn1", "cifar10 (part: JPEG copy)", epochs=20)).table("area")
    assert "| cifar10, copy: JPEG |" in made


@pytest.mark.parametrize(
    "other",
    [
        {"more": " trainer.max_epochs=2"},
        {"more": " procedure.weights=random"},
        {"epochs": 9},  # imdb_rnn asks for ten, and nothing stops it by itself
        {"data": "lj_speech (part: 21 of 13,100 clips, in order 16/1/4)"},
    ],
)
def test_cut_trainings_random_weights_and_few_items_stay_out(pages, other):
    made = pages(row(**other)).table("area")
    assert "imdb_rnn" not in made
    assert "0 of 1 recorded runs" in made


@pytest.mark.parametrize(
    ("experiment", "data", "figures", "at_chance"),
    [
        ("imdb_rnn", "imdb (full)", {"test/accuracy": 0.51}, True),
        ("imdb_rnn", "imdb (full)", {"test/accuracy": 0.65, "val/accuracy": 0.66}, False),
        ("octmnist_perceptron", "mnist (full)", {"test/accuracy": 0.11}, True),
        ("octmnist_perceptron", "mnist (full)", {"test/accuracy": 0.3}, False),
        ("taxi_lstm_ae", "nyc_taxi (full)", {"test/accuracy": 0.78, "test/accuracy_of_none": 0.77}, True),
        ("taxi_lstm_ae", "nyc_taxi (full)", {"test/accuracy": 0.8, "test/accuracy_of_none": 0.77}, False),
        ("taxi_lstm_ae", "nyc_taxi (full)", {"test/roc_auc": 0.51}, True),
        ("air_lstm", "air_quality (full)", {"test/r2": -0.2}, True),
        ("tone_speech_ctc", "tone_speech (generated)", {"test/wer": 1.0}, True),
        ("tone_speech_ctc", "tone_speech (generated)", {"test/wer": 0.2, "test/cer": 0.1}, False),
        ("cifar_ae_deep", "cifar10 (part: JPEG copy)", {"test/loss": 0.1}, False),
    ],
)
def test_a_row_at_chance_is_found(pages, experiment, data, figures, at_chance):
    epochs = 100
    made = pages(*(row(experiment, data, metric, value, epochs=epochs) for metric, value in figures.items()))
    (result,) = made.results("area")
    assert bool(result.at_chance()) == at_chance


def test_a_training_that_stops_itself_is_not_cut(pages):
    made = pages(row("air_lstm", "air_quality (full)", "test/r2", epochs=3), row(epochs=3))
    assert [result.experiment for result in made.results("area")] == ["air_lstm"]


def test_the_readme_shows_no_cut_training_and_none_at_chance(script):
    tables = script("readme_tables")
    rules = script("result_rules")
    for table, experiment, data, metric, _ in tables.SHOWN:
        for measured in tables.find(table, experiment, data, metric):
            assert rules.is_full_length([measured])
            assert not rules.at_chance(data, {metric: float(measured["measured"])})


def test_only_a_finished_run_is_recorded(script, tmp_path):
    with pytest.raises(SystemExit, match="is no run folder"):
        script("results").record(tmp_path, [])
    (tmp_path / "status.json").write_text(json.dumps({"state": "running"}))
    with pytest.raises(SystemExit, match="is running, not done: nothing recorded"):
        script("results").record(tmp_path, [])


@pytest.mark.parametrize(
    ("word", "as_published"),
    [("model.encoder=[512,256,128,32]", False), ("model.encoder=[512,256,128,64]", True), ("seed=3", True)],
)
def test_a_quoted_override_is_a_change_of_the_experiment(script, word, as_published):
    """The command in a run's env.json is a line for a shell, with quotes around brackets."""
    from dl_lab.configs import Composer

    results = script("results")
    words = ["experiment=cifar_ae_deep", word]
    command = results._command(Path("run"), shlex.join(["dl-lab", *words, "hydra.run.dir=a b"]))
    assert shlex.split(command) == ["dl-lab", *words]
    config = Composer().compose(words).config
    assert results._is_as_published(command, "cifar10", config) == as_published


def test_every_experiment_has_a_table_and_a_page(script):
    results = script("results")
    tables = {entry.name: results.area(entry.name) for entry in catalogue.entries("experiment")}
    assert all((RESULTS / f"{name}.md").exists() for name in tables.values())
    wanted = {"vgg16c": "images", "cifar_resnet9": "images", "food_resnet50": "transfer", "imdb_lstm": "text"}
    assert {name: tables[name] for name in wanted} == wanted


def test_a_repeated_seed_replaces_the_older_row(script, tmp_path):
    results = script("results")
    path = tmp_path / "area.csv"
    results.write(path, [row(measured=0.1, command="dl-lab experiment=imdb_rnn")])
    results.write(path, [row(measured=0.2), row(measured=0.3, more=" trainer.max_epochs=2")])
    assert [one["measured"] for one in results.read_rows(path)] == ["0.2", "0.3"]


def doubtful():
    """(area, experiment) of every row that misses its published figure on full data, or that is at chance."""
    import sys

    sys.path.insert(0, str(ROOT / "scripts" / "docs"))
    import result_pages

    areas = [path.stem for path in sorted(RESULTS.glob("*.csv")) if (RESULTS / f"{path.stem}.md").exists()]
    return sorted(
        {
            (area, result.experiment)
            for area in areas
            for result in result_pages.results(area)
            if result.at_chance() or any(result.met(metric) == "no" for metric in result.published)
        }
    )


@pytest.mark.parametrize(("area", "experiment"), doubtful())
def test_a_row_that_misses_its_figure_or_is_at_chance_has_its_reason_on_the_page(area, experiment):
    page = (RESULTS / f"{area}.md").read_text(encoding="utf-8")
    reasons = [part for part in re.split(r"\n(?=- |\n)", page) if part.startswith(f"- `{experiment}`")]
    n_sentences = sum(len(re.findall(r"[.](?=\s|$)", reason)) for reason in reasons)
    assert n_sentences >= 2, f"{area}.md gives no reason, in two sentences, for the figures of {experiment}"


# -- running ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def results(script, monkeypatch, tmp_path):
    """scripts/results.py that records into a folder of its own."""
    module = script("results")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    return module


def recorded(results, area):
    return results.read_rows(results.RESULTS / f"{area}.csv")


def test_it_runs_records_does_nothing_twice_and_resumes(results, tmp_path, capfd):
    """boolean_band draws nothing: a second seed gives the same figures, and there is no third."""
    outputs = tmp_path / "outputs"
    results.run(["boolean_band"], outputs, ["threads=1"], 10, "")
    rows = recorded(results, "linear")
    assert {one["seed"] for one in rows} == {"42", "43"}
    assert {one["experiment"] for one in rows} == {"boolean_band"}
    assert all("paths." not in one["command"] for one in rows)
    assert len(list(outputs.glob("**/summary.json"))) == 2
    capfd.readouterr()
    results.run(["boolean_band"], outputs, ["threads=1"], 10, "")
    assert len(list(outputs.glob("**/summary.json"))) == 2
    assert recorded(results, "linear") == rows
    assert "boolean_band            " in results.show(results.planned(["boolean_band"], outputs, []))
    assert " done" in results.show(results.planned(["boolean_band"], outputs, []))
    (item,) = results.planned(["boolean_band"], outputs, [])
    status = item.record.folder / "status.json"
    status.write_text(json.dumps(json.loads(status.read_text()) | {"state": "interrupted"}))
    (item,) = results.planned(["boolean_band"], outputs, [])
    assert item.step == "resume"
    results.run(["boolean_band"], outputs, [], 0, "")
    assert len(list(outputs.glob("**/status.json"))) == 2
    assert results.planned(["boolean_band"], outputs, [])[0].step == "done"


def test_data_that_are_not_here_are_left_out_or_replaced(results, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DL_LAB_DATA", str(tmp_path / "nothing"))
    names = ["octmnist_perceptron", "food_resnet50"]
    results.run(names, tmp_path / "outputs", [], 10, "")
    out = capsys.readouterr().out
    assert "octmnist_perceptron: left out (not here: oct2017_28/octmnist_like.npz)" in out
    assert "food_resnet50: left out (not here: food-101.tar.gz, ImageNet weights of resnet50)" in out
    assert not (tmp_path / "outputs").exists()
    (tmp_path / "nothing" / "oct2017_28").mkdir(parents=True)
    (tmp_path / "nothing" / "oct2017_28" / "octmnist_like.npz").touch()
    (item,) = results.planned(["octmnist_perceptron"], tmp_path / "outputs", [])
    assert item.command == ["reproduce", "octmnist_perceptron", "dataset=oct2017", "seed=42"]


def test_nothing_begins_after_the_given_time(results, tmp_path, capsys):
    results.run(["boolean_band"], tmp_path / "outputs", [], 10, "00:00")
    assert "boolean_band: not begun after 00:00" in capsys.readouterr().out
    assert not (tmp_path / "outputs").exists()
