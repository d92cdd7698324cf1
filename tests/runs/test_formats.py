"""Run folders of other versions: those of dl-lab 0.1 still open, those of a newer dl-lab are refused in a sentence.

`tests/fixtures/runs-0.1` was written by dl-lab 0.1: a finished run, and one that was killed with `kill -9`.
`tests/fixtures/components-0.1.jsonl` holds every component that its configs could name, with its arguments.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dl_lab import cli, configs
from dl_lab.configs import older
from dl_lab.configs.arguments import check_call
from dl_lab.configs.targets import locate
from dl_lab.runs.files import read_json
from dl_lab.runs.find import state_of
from dl_lab.runs.formats import FORMAT
from dl_lab.types import ConfigError

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
DONE, KILLED = "0000d0e1", "0000d0e2"
COMPONENTS = [json.loads(line) for line in (FIXTURES / "components-0.1.jsonl").read_text().splitlines()]


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    """A copy of the runs of dl-lab 0.1, below the current folder."""
    folder = tmp_path / "outputs"
    shutil.copytree(FIXTURES / "runs-0.1", folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("DL_LAB_DATA", str(tmp_path / "no data"))
    return folder


@pytest.fixture
def command(capsys):
    def run(*words: str) -> tuple[int, str]:
        status = cli.main(list(words))
        told = capsys.readouterr()
        return status, told.out + told.err

    return run


def folder_of(outputs: Path, run: str) -> Path:
    (folder,) = outputs.glob(f"*/*_{run}")
    return folder


def test_runs_and_compare_show_older_runs(outputs, command):
    status, out = command("runs")
    assert status == 0
    assert {"done", "killed", DONE, KILLED} <= set(out.split())
    status, out = command("compare")
    assert status == 0
    assert "killed" in out


def test_verify_repeats_older_runs(outputs, command):
    """The fixture may come from another processor, so the last bits of the sums may differ."""
    status, out = command("verify", DONE)
    assert status == 0, out


def test_predict_loads_the_weights_of_older_runs(outputs, command, tmp_path):
    from dl_lab.jobs.loading import load

    loaded = load(folder_of(outputs, DONE))
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == 310


def test_resume_continues_from_an_older_checkpoint(outputs, command):
    folder = folder_of(outputs, KILLED)
    status, out = command("resume", KILLED)
    assert status == 1
    assert "dl-lab's code changed since it began" in out
    status, out = command("resume", KILLED, "--mixed-code")
    assert status == 0, out
    assert state_of(folder) == "done"
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == list(range(1, 31)) + [records[-1]["epoch"]] * (len(records) - 30)
    assert read_json(folder / "status.json")["format"] == FORMAT


def test_a_new_run_names_its_format(execute):
    folder, _ = execute("profile=smoke")
    assert read_json(folder / "status.json")["format"] == FORMAT


@pytest.mark.parametrize("number", range(len(COMPONENTS)))
def test_every_component_of_older_configs_is_found_and_takes_its_arguments(number):
    node = older.upgrade(COMPONENTS[number])
    check_call("part", node, locate("part", node["_target_"]))


def test_a_refused_older_name_names_the_new_one():
    with pytest.raises(ConfigError, match=r"dl_lab\.experiments\.fit\.Fit has moved; write dl_lab\.procedures\.fit\."):
        locate("procedure", "dl_lab.experiments.fit.Fit")


def test_upgrade_leaves_a_config_of_this_version_alone():
    config = configs.Composer().compose(["experiment=air_lstm"]).config
    assert older.upgrade(config) == config


@pytest.mark.parametrize(
    "words", [["resume"], ["verify"], ["export"], ["predict", "x.csv"], ["diff", DONE]], ids=lambda words: words[0]
)
def test_a_newer_run_is_refused_in_a_sentence(outputs, command, words):
    path = folder_of(outputs, KILLED) / "status.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": FORMAT + 1}))
    before = sorted((p, p.stat().st_mtime_ns) for p in outputs.rglob("*"))
    verb, *others = words
    status, out = command(verb, KILLED, *others)
    assert status == 1
    assert out.count("\n") == 1
    assert f"was written by a newer dl-lab: its format is {FORMAT + 1}" in out
    assert sorted((p, p.stat().st_mtime_ns) for p in outputs.rglob("*")) == before


def test_a_newer_run_is_listed_with_the_state_newer(outputs, command):
    path = folder_of(outputs, KILLED) / "status.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": "2.0"}))
    status, out = command("runs")
    assert status == 0
    assert {"newer", "done"} <= set(out.split())


@pytest.mark.parametrize("value", ["often", [], {}, None])
def test_a_damaged_argument_that_is_gone_keeps_its_key(value):
    node = {"_target_": "dl_lab.datasets.cifar10.cifar10", "shuffle": value}
    assert older.upgrade(node)["shuffle"] == value
