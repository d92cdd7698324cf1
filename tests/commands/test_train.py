"""dl-lab key=value: what it prints before and after a run, Hydra's views of a config, tab completion."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dl_lab import cli, configs
from dl_lab.commands import train
from dl_lab.show import reporting
from dl_lab.types import ConfigError, UserError

QUICK = ("model=linear", "trainer.max_epochs=1", "logger=none", "threads=1")


def test_header_and_result_table(command, tmp_path):
    status, out, err = command(*QUICK)
    folder = next((tmp_path / "outputs").glob("*/*"))
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if "/" in line.split(" ")[0]}
    assert status == 0
    assert "Experiment  linear on digits" in err
    assert "Data        digits (full), 1,297 train, 200 val, 300 test" in err
    assert "Model       linear, 650 parameters" in err
    assert "Device      cpu, 1 thread" in err
    assert f"Run folder  {folder.relative_to(tmp_path)}" in err
    assert out.splitlines()[1] == "linear on digits, digits (full), seed 0, 1 epoch"
    assert rows == {name: [f"{value:.4f}"] for name, value in metrics.items()}
    assert [name.partition("/")[0] for name in rows] == ["test"] * 3 + ["val"] * 3 + ["train"] * 2
    assert re.search(r"TensorBoard  dl-lab tensorboard [0-9a-f]{8}$", out, re.MULTILINE)


def test_published_figures_and_notes_about_them_are_shown(command):
    status, out, err = command("experiment=octmnist_cnn", "profile=smoke", "logger=none", "threads=1")
    lines = out.splitlines()
    row = next(line.split() for line in lines if line.startswith("test/accuracy"))
    assert status == 0
    assert "Does max-pooling beat strided convolution" in err
    assert row[2] == "0.8374"
    assert float(row[3]) == pytest.approx(float(row[1]) - 0.8374, abs=1e-4)
    assert any(line.startswith("Reference (test/accuracy): IST Deep Learning 2023/24") for line in lines)
    assert any(line.startswith("Note: the data are generated.") for line in lines)


@pytest.fixture
def finished(make_run):
    """A run of a shipped experiment on another data set, with other settings."""
    from dl_lab.runs.board import NoBoard
    from dl_lab.runs.recorder import Run

    folder = make_run(lr=0.5, metrics={"test/accuracy": 0.9})
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["reference"] = {"test/accuracy": {"value": 0.8, "source": "a book"}}
    (folder / ".hydra" / "overrides.yaml").write_text("- experiment=octmnist_cnn\n- optimizer.lr=0.5\n- seed=3\n")
    run = Run(folder, config, NoBoard())
    run.finish({"test/accuracy": 0.9}, dataset={"name": "mnist", "label": "full", "note": "", "sizes": {}}, epochs=15)
    return run


def test_another_data_set_and_other_settings_are_named(finished):
    choices = {"experiment": "octmnist_cnn", "dataset": "mnist", "model": "pooled_cnn"}
    text = "\n".join(reporting.report(finished, choices, {"test/accuracy": 0.9}, 100))
    assert "Note: the reference figures are for octmnist, these for mnist." in text
    assert "Note: the settings are not the experiment's own: optimizer.lr=0.5" in text
    assert "+0.1000" in text


def test_partial_data_are_named(finished):
    finished.summary["dataset"] = {"name": "octmnist", "label": "part", "note": "a file", "sizes": {}}
    choices = {"experiment": "octmnist_cnn", "dataset": "octmnist_part"}
    text = "\n".join(reporting.report(finished, choices, {"test/accuracy": 0.9}, 100))
    assert "octmnist (part)" in text
    assert "Note: measured on a part of octmnist (a file), not on the full data set." in text
    assert "these for" not in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits_the_terminal(finished, width):
    choices = {"experiment": "octmnist_cnn", "dataset": "mnist", "model": "pooled_cnn"}
    metrics = {f"{split}/{name}": 0.5 for split in ("train", "val", "test") for name in ("accuracy", "loss")}
    dataset = {
        "name": "mnist",
        "label": "part",
        "note": "a long note " * 8,
        "sizes": {"train": 10**6, "val": 5, "test": 5},
    }
    facts = {"dataset": dataset, "parameters": 10**9, "trainable": 10**8, "device": "cpu"}
    lines = reporting.report(finished, choices, metrics, width) + reporting.header(finished, choices, facts, width)
    assert max(len(line) for line in lines if not line.startswith(("Run folder", "TensorBoard"))) <= width


def test_many_metrics_are_cut(finished):
    metrics = {f"rank_{i}": 0.5 for i in range(100)}
    text = "\n".join(reporting.report(finished, {}, metrics, 100))
    assert text.count("rank_") == reporting.MOST_METRICS
    assert "60 more in summary.json" in text


# -- what is refused leaves nothing behind ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["trainer.max_epoch=3"], 2, "Did you mean trainer.max_epochs?"),
        (["model.hidden=[a]"], 2, "model.hidden"),
        (["trainer.device=cuda:7"], 1, "trainer.device=cuda:7 cannot be used"),
        (["--multi"], 2, "There is no flag --multi. See dl-lab --help."),
        (["trian"], 2, "There is no verb 'trian'. Did you mean train?"),
        (["optimizer.lr"], 2, "optimizer.lr has no value: write optimizer.lr=VALUE."),
        (["experiment=toy_perceptron", "optimizer.lr=0.1"], 2, "optimizer.lr: this key changes nothing here"),
        (["-m", "experiment=toy_perceptron", "optimizer.lr=0.1,0.2"], 2, "optimizer.lr: this key changes nothing here"),
        (["--config-dir", "nowhere"], 2, "--config-dir nowhere is not a folder."),
        (["--cfg", "job", "model=mlpp"], 2, "There is no model 'mlpp'. Did you mean mlp?"),
        (["--cfg", "job", "--resolve", "optimizer.lr=${x}"], 2, "${x} names a key that this config does not have"),
        (["--cfg", "job", "--info", "all"], 2, "Only one of"),
        (["--cfg", "hydra", "--resolve"], 2, "only while a job runs"),
    ],
)
def test_a_mistake_is_one_sentence(command, tmp_path, words, status, said):
    got, out, err = command(*words)
    assert got == status
    assert said in err
    assert err.startswith("dl-lab: ")
    assert "Traceback" not in out + err
    assert not (tmp_path / "outputs").exists()


def test_a_bug_in_a_users_model_is_one_sentence_with_its_place(command, tmp_path, monkeypatch):
    (tmp_path / "my_buggy_nets.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(64, 10)\n"
        "    def forward(self, x):\n"
        "        return self.layerr(x)\n"
    )
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "net.yaml").write_text("_target_: my_buggy_nets.Net\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DL_LAB_ALLOW", "my_buggy_nets")
    status, _, err = command("--config-dir", "own", "model=net")
    assert status == 2
    assert "AttributeError: 'Net' object has no attribute 'layerr' (my_buggy_nets.py, line 7)" in err
    assert "Traceback" not in err
    assert not (tmp_path / "outputs").exists()
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigError, match="layerr"):
        cli.main(["--config-dir", "own", "model=net"])


# -- Hydra's own --------------------------------------------------------------------------------------------------


def test_the_config_is_shown(lab):
    shown = yaml.safe_load(lab("--cfg", "job", "--resolve", "experiment=octmnist_cnn", "optimizer.lr=0.5").stdout)
    assert shown["optimizer"]["lr"] == 0.5
    assert shown["model"]["n_classes"] == 4


def test_where_the_config_comes_from(lab, tmp_path):
    (tmp_path / "own").mkdir()
    done = lab("--info", "searchpath", "--config-dir", "own")
    assert done.returncode == 0
    assert str(tmp_path / "own") in done.stdout


def test_hydras_own_help(lab):
    done = lab("--hydra-help")
    assert done.returncode == 0
    assert "--shell-completion" in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_tab_completion_in_bash(tmp_path):
    program = Path(sys.executable).with_name("dl-lab")
    if not program.exists():
        pytest.skip("the dl-lab program is not installed beside this Python")
    script = """
        eval "$(dl-lab -sc install=bash)"
        line="$1"
        COMP_LINE="$line" COMP_POINT=${#line} COMP_WORDS=($line) COMP_CWORD=1
        $(complete -p dl-lab | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        printf '%s\\n' "${COMPREPLY[@]}"
    """

    def complete(line: str) -> list[str]:
        path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
        words = ["bash", "-c", script, "bash", line]
        done = subprocess.run(
            words, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    assert "octmnist_cnn" in complete("dl-lab experiment=oct")  # bash ends a word at "="
    assert "optimizer.lr=" in complete("dl-lab optimizer.l")


@pytest.mark.parametrize(("words", "says"), [([], True), (["-m", "seed=0,1"], False)])
def test_a_terminal_hears_that_torch_loads_before_anything_is_read(words, says, capsys, monkeypatch):
    def stop(*arguments):
        raise UserError("nothing is read yet")

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(configs, "Composer", stop)
    with pytest.raises(UserError):
        train.main(words)
    assert ("loading torch" in capsys.readouterr().err) == says


@pytest.mark.parametrize("place", ["trainer", "model"])
def test_code_that_changes_the_current_folder_is_refused(execute, tmp_path, monkeypatch, place):
    """The run's files are named from there: none of them was found, and the run stayed `running` for ever."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    before = os.getcwd()
    wanted = {"trainer": "dl_lab.training.trainer.Trainer.fit", "model": "dl_lab.models.mlp.MLP.__init__"}[place]

    def move(*arguments, **named):
        os.chdir(elsewhere)
        raise FileNotFoundError(2, "No such file or directory", "x.csv")

    monkeypatch.setattr(wanted, move)
    with pytest.raises(UserError, match=f"The code changed the current folder to {elsewhere} .* It must stay {before}"):
        execute("dataset.source=generated", "trainer.max_epochs=1")
    assert os.getcwd() == before
    for status in tmp_path.glob("run*/status.json"):
        assert json.loads(status.read_text())["state"] == "failed"


def test_a_current_folder_that_is_gone_is_refused(execute, tmp_path, monkeypatch):
    def move(*arguments):
        (tmp_path / "gone").mkdir()
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        return {}

    monkeypatch.setattr("dl_lab.training.trainer.Trainer.fit", move)
    with pytest.raises(UserError, match="changed the current folder to a folder that is no longer there"):
        execute("dataset.source=generated", "trainer.max_epochs=1")


def test_sys_exit_in_the_users_code_fails_the_run(execute, tmp_path, monkeypatch):
    """Also with the status 0: the training is not done."""

    def leave(*arguments):
        raise SystemExit(0)

    monkeypatch.setattr("dl_lab.training.trainer.Trainer.fit", leave)
    with pytest.raises(UserError, match=r"The code ended the program, sys.exit: 0 \(test_train.py, line"):
        execute("dataset.source=generated", "trainer.max_epochs=1")
    (status,) = tmp_path.glob("run*/status.json")
    assert json.loads(status.read_text())["state"] == "failed"
