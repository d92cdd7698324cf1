"""A project of the user's own: each verb notices an edit of its code or data, and ignores a touch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dl_lab import configs

NET = """from torch import nn

from own_houses.layers import SIZE


class Net(nn.Sequential):
    def __init__(self, n_features: int, n_classes: int):
        super().__init__(nn.Linear(n_features, SIZE), nn.ReLU(), nn.Linear(SIZE, n_classes))
"""
DATA = """import numpy as np
import torch

from dl_lab.datasets.batches import TensorSplit, fingerprint
from dl_lab.datasets.dataset import Dataset
from dl_lab.types import LabelledBatch


def houses(path: str, n_features: int, n_classes: int) -> Dataset:
    rows = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float32)
    columns = LabelledBatch(torch.from_numpy(rows[:, :-1]), torch.from_numpy(rows[:, -1]).long())
    part = TensorSplit(columns, lambda batch: batch)
    return Dataset("houses", "full", part, part, part, fingerprint(*columns))
"""
WORDS = ("--config-dir", "conf", "dataset=houses", "model=net", "trainer.max_epochs=1", "logger=none", "threads=1")
SWEEP = ("-m", *WORDS, "callbacks.curves=null", "callbacks.confusion_matrix=null", "seed=0,1", "lanes=1")


def make_project(folder: Path) -> None:
    (folder / "own_houses").mkdir(parents=True)
    (folder / "own_houses" / "__init__.py").write_text("")
    (folder / "own_houses" / "net.py").write_text(NET)
    (folder / "own_houses" / "layers.py").write_text("SIZE = 4\n")
    (folder / "own_houses" / "data.py").write_text(DATA)
    for group in ("dataset", "model"):
        (folder / "conf" / group).mkdir(parents=True)
    (folder / "conf" / "model" / "net.yaml").write_text("_target_: own_houses.net.Net\nn_features: 2\nn_classes: 2\n")
    (folder / "conf" / "dataset" / "houses.yaml").write_text(
        "_target_: own_houses.data.houses\npath: houses.csv\nn_features: 2\nn_classes: 2\n"
    )
    rows = "".join(f"{i % 3},{i % 5},{i % 2}\n" for i in range(32))
    (folder / "houses.csv").write_text(f"rooms,floor,sold\n{rows}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The project, with one run and one sweep of two jobs, made by the command in its own process."""
    folder = tmp_path_factory.mktemp("project")
    make_project(folder)
    environment = {**os.environ, "DL_LAB_ALLOW": "own_houses", "OMP_NUM_THREADS": "1"}
    for words in (WORDS, SWEEP):
        line = [sys.executable, "-m", "dl_lab", *words]
        done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def project(trained, tmp_path, monkeypatch, fresh_imports):
    """A copy of the project in an empty folder. Each test imports its package and loads its data anew."""
    configs.forget_datasets()
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_houses"]:
        del sys.modules[name]  # of another test's project
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("DL_LAB_ALLOW", "own_houses")
    return tmp_path


def the_run(project: Path) -> Path:
    (status,) = project.glob("outputs/2*/*/status.json")
    return status.parent


def edit_csv(project: Path) -> None:
    text = (project / "houses.csv").read_text()
    (project / "houses.csv").write_text(text.replace("0,0,0", "0,0,1", 1))


def edit_code(project: Path) -> None:
    (project / "own_houses" / "layers.py").write_text("SIZE = 5\n")


def touch(project: Path) -> None:
    for path in (project / "own_houses" / "layers.py", project / "houses.csv"):
        os.utime(path)
    (project / "own_houses" / "unused.py").write_text("nobody = 'imports this'\n")


def lose_csv(project: Path) -> None:
    (project / "houses.csv").unlink()


EDITS = {"touch": touch, "code": edit_code, "data": edit_csv, "no data": lose_csv}


@pytest.mark.parametrize(
    ("edit", "status", "words"),
    [
        ("touch", 0, "(2 skip)"),
        ("code", 1, "Your own code that job 0 runs changed since this sweep started"),
        ("data", 1, "The data of job 0 changed since this sweep started"),
        ("no data", 1, "are missing here (houses.csv)"),
    ],
)
def test_a_sweep_typed_again_notices_an_edit(command, project, edit, status, words):
    EDITS[edit](project)
    found, out, err = command(*SWEEP, "--dry-run")
    assert (found, words in out + err) == (status, True), out + err
    if edit == "no data":
        assert "changed" not in out + err
    elif status:
        found, out, err = command(*SWEEP, "--dry-run", "--new")
        assert (found, "(2 run)" in out) == (0, True), out + err
    if edit == "code":
        found, out, err = command(*SWEEP, "--dry-run", "--mixed-code")
        assert (found, "(2 skip)" in out) == (0, True), out + err


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ("code", "your own code changed since it began (own_houses/layers.py)"),
        ("data", "its data changed since it began (houses.csv)"),
        ("no data", "data that it began with are missing here (houses.csv)"),
    ],
)
def test_verify_and_resume_refuse_other_code_and_data(command, project, edit, words):
    run = the_run(project)
    EDITS[edit](project)
    status, _, err = command("verify", str(run))
    assert (status, words in err) == (1, True), err
    record = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**record, "state": "interrupted"}))
    status, _, err = command("resume", str(run))
    assert (status, words in err) == (1, True), err
    assert "Traceback" not in err


def test_verify_after_a_touch_and_with_mixed_code(command, project):
    run = the_run(project)
    touch(project)
    status, out, err = command("verify", str(run))
    assert (status, "Bit-equal" in out) == (0, True), err
    (project / "own_houses" / "layers.py").write_text("SIZE = 4  # the same in other words\n")
    status, out, err = command("verify", str(run), "--mixed-code")
    assert (status, "Bit-equal" in out) == (0, True), err


def test_diff_names_the_files(command, project):
    one = the_run(project)
    other = shutil.copytree(one, one.with_name("10-00-00_00000001"))
    environment = json.loads((one / "env.json").read_text())
    assert set(environment["own_code"]) == {f"own_houses/{name}.py" for name in ("__init__", "net", "layers", "data")}
    assert set(environment["data_files"]) == {"houses.csv"}
    environment["own_code"]["own_houses/layers.py"] = "0" * 12
    environment["data_files"]["houses.csv"] = "1" * 12
    (other / "env.json").write_text(json.dumps(environment))
    found = json.loads(command("diff", str(one), str(other), "--json")[1])
    assert set(found["code"]) == {"own_houses/layers.py"}
    assert set(found["data"]) == {"houses.csv"}


def test_an_own_data_set_without_known_files_is_compared_by_content(command, project, capsys):
    """`resume` loads such data and compares their content."""
    text = (project / "own_houses" / "data.py").read_text()
    source = text.replace("path: str, ", "").replace("loadtxt(path", "loadtxt(chr(104) + 'ouses' + chr(46) + 'csv'")
    (project / "own_houses" / "data.py").write_text(source)
    status, _, err = command(*WORDS, "~dataset.path", "hydra.run.dir=outputs/other")
    assert status == 0, err
    assert "data_files" not in json.loads((project / "outputs" / "other" / "env.json").read_text())
    record = json.loads((project / "outputs" / "other" / "status.json").read_text())
    (project / "outputs" / "other" / "status.json").write_text(json.dumps({**record, "state": "interrupted"}))
    edit_csv(project)
    status, _, err = command("resume", "outputs/other")
    assert (status, "its data set gives other data than when it began" in err) == (1, True), err


def test_a_data_set_without_generated_data_is_loaded_once(command, project):
    text = (project / "own_houses" / "data.py").read_text()
    counted = text.replace(
        "    rows = ", "    with open('loaded.txt', 'a') as file:\n        file.write('x')\n    rows = "
    )
    (project / "own_houses" / "data.py").write_text(counted)
    status, _, err = command(*WORDS, "hydra.run.dir=outputs/once")
    assert status == 0, err
    assert (project / "loaded.txt").read_text() == "x"
    assert "epoch 1/1  " in err, "where the output is no terminal, each epoch is a line"
    random = counted.replace("    part = ", "    rows = torch.rand(3)\n    part = ")
    (project / "own_houses" / "data.py").write_text(random)
    for name in [name for name in sys.modules if name.startswith("own_houses")]:
        del sys.modules[name]
    status, _, err = command(*WORDS, "hydra.run.dir=outputs/twice")
    assert status == 0, err
    assert (project / "loaded.txt").read_text() == "xxxx", "one that draws random numbers is not shared"


def test_an_error_from_own_code_names_its_place(command, project):
    text = (project / "own_houses" / "layers.py").read_text()
    (project / "own_houses" / "layers.py").write_text(
        text + "\n\ndef check(width):\n    raise ValueError('too wide')\n"
    )
    net = (project / "own_houses" / "net.py").read_text()
    changed = net.replace("import SIZE", "import SIZE, check").replace(
        "        super()", "        check(1)\n        super()"
    )
    (project / "own_houses" / "net.py").write_text(changed)
    status, _, err = command(*WORDS)
    assert (status, "model: too wide (layers.py, line 5)" in err) == (2, True), err


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("own_hauses.net.Net", "own_hauses.net.Net is not allowed"),
        ("own_gone.net.Net", "there is no package own_gone: it is neither installed nor in the current folder"),
        ("own_houses.nett.Net", "there is no module own_houses.nett. Did you mean net?"),
        ("Net", "'Net' names no module: write package.module.Net."),
    ],
)
def test_a_missing_target_is_one_sentence(command, project, monkeypatch, target, words):
    monkeypatch.setenv("DL_LAB_ALLOW", "own_houses,own_gone,Net")
    (project / "conf" / "model" / "net.yaml").write_text(f"_target_: {target}\n")
    status, _, err = command(*WORDS)
    assert (status, words in " ".join(err.split())) == (2, True), err
    assert "Traceback" not in err


def test_a_model_whose_decorated_constructor_takes_any_keyword(command, project):
    """The configs of `transformers` do this: their signature names only the fields."""
    (project / "own_houses" / "net.py").write_text(
        NET + "\n\nimport functools\n\n\ndef lenient(init):\n    @functools.wraps(init)\n"
        "    def wrapped(self, *args, **kwargs):\n"
        "        kwargs.pop('num_labels')\n        init(self, *args, **kwargs)\n\n"
        "    return wrapped\n\n\nNet.__init__ = lenient(Net.__init__)\n"
    )
    status, _, err = command(*WORDS, "+model.num_labels=2")
    assert status == 0, err
