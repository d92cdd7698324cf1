"""The user's own code and data belong to the identity of a job: an edit is noticed, a touch is not."""

from __future__ import annotations

import json
import os
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from dl_lab.configs import identity, sources
from dl_lab.datasets import contents

MODEL = """
from torch import nn

from .layers import head
from .unused import nothing


class Net(nn.Module):
    def __init__(self, n_features: int, n_classes: int):
        super().__init__()
        self.net = head(n_features, n_classes)

    def forward(self, x):
        return self.net(x.flatten(1))
"""


@pytest.fixture
def own(tmp_path, monkeypatch, fresh_imports):
    """A package in the current folder, as README.md describes. Returns a function that gives the digests of a job."""
    package = tmp_path / "own_net"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text(MODEL)
    (package / "layers.py").write_text("from torch import nn\n\n\ndef head(n, k):\n    return nn.Linear(n, k)\n")
    (package / "unused.py").write_text("nothing = 0\n")
    (package / "elsewhere.py").write_text("nobody = 'imports this'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DL_LAB_ALLOW", "own_net")

    def code(target: str = "own_net.net.Net") -> dict[str, str]:
        return sources.own_code({"model": {"_target_": target}})

    return code


def test_the_files_of_an_own_class_and_what_it_imports(own, tmp_path):
    assert set(own()) == {"own_net/__init__.py", "own_net/net.py", "own_net/layers.py", "own_net/unused.py"}
    before = own()
    (tmp_path / "own_net" / "elsewhere.py").write_text("nobody = 1\n")
    os.utime(tmp_path / "own_net" / "layers.py")
    assert own() == before, "a touch, and a file that the class does not import, change nothing"
    (tmp_path / "own_net" / "layers.py").write_text("from torch import nn\n\n\ndef head(n, k):\n    return None\n")
    changed = own()
    assert [name for name in before if before[name] != changed[name]] == ["own_net/layers.py"]
    assert not any(name.startswith("own_net") for name in sys.modules), "nothing is imported to find out"


def test_shipped_classes_have_no_own_code(own):
    assert (
        sources.own_code({"model": {"_target_": "dl_lab.models.mlp.MLP"}, "n": [{"_target_": "torch.nn.ReLU"}]}) == {}
    )


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("import own_net.layers", True),
        ("import own_net.layers as l", True),
        ("from own_net import layers", True),
        ("from . import layers", True),
        ("def later():\n    from .layers import head", True),
        ("import importlib\nimportlib.import_module('own_net.' + 'layers')", True),
        ("import loose_layers", False),
        ("import json, torch, dl_lab", False),
    ],
)
def test_every_kind_of_import_is_followed(own, tmp_path, statement, found):
    (tmp_path / "own_net" / "net.py").write_text(f"{statement}\n\n\nclass Net: ...\n")
    assert ("own_net/layers.py" in own()) == found
    assert not any(name.startswith(("json", "torch", "dl_lab")) for name in own())


def test_loose_modules_in_the_current_folder_are_followed(own, tmp_path):
    (tmp_path / "loose_net.py").write_text("import loose_layers\nimport numpy\n\n\nclass Net: ...\n")
    (tmp_path / "loose_layers.py").write_text("")
    (tmp_path / "loose_other.py").write_text("")
    assert set(own("loose_net.Net")) == {"loose_net.py", "loose_layers.py"}


def test_another_allowed_package_and_a_broken_file_are_followed(own, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "shared_net.py").write_text("def broken(:\n")
    monkeypatch.syspath_prepend(str(elsewhere))
    (tmp_path / "own_net" / "net.py").write_text("import shared_net\n\n\nclass Net: ...\n")
    assert len(own()) == 2
    monkeypatch.setenv("DL_LAB_ALLOW", "own_net,shared_net")
    assert [name for name in own() if name.endswith("shared_net.py")]
    assert own("nowhere.at.All") == {}


# -- data ---------------------------------------------------------------------------------------------------------


def job(dataset: dict, tmp_path) -> dict:
    paths = {"data_dir": str(tmp_path / "data"), "cache_dir": str(tmp_path / "cache"), "output_dir": "outputs"}
    return {"procedure": {"dataset": {"_target_": "own_net.data.houses", **dataset}}, "paths": paths}


def test_the_files_that_keys_and_sources_name_count(own, tmp_path):
    (tmp_path / "data").mkdir()
    for folder in ("data", ".", "own_net"):
        (tmp_path / folder / "houses.csv").write_text("price\n1\n")
    (tmp_path / "own_net" / "data.py").write_text("def houses(path=''):\n    return open('prices.csv')\n")
    assert set(identity.data_files(job({"path": "houses.csv"}, tmp_path))) == {"houses.csv"}
    (tmp_path / "prices.csv").write_text("1\n")
    named = job({}, tmp_path)
    before = identity.data_files(named)
    assert set(before) == {"prices.csv"}
    os.utime(tmp_path / "prices.csv", ns=(1, 1))
    assert identity.data_files(named) == before
    (tmp_path / "prices.csv").write_text("2\n")
    assert identity.data_files(named) != before
    assert identity.data_files(job({"source": "generated", "path": "houses.csv"}, tmp_path)) == {}


def test_a_folder_of_images_is_found(own, tmp_path, monkeypatch):
    folder = tmp_path / "data" / "shapes"
    for name in ("round", "square"):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.full((4, 4), i, np.uint8)).save(folder / name / f"{i}.png")
    named = job({"_target_": "dl_lab.datasets.sets.image_folder.image_folder", "folder": "shapes"}, tmp_path)
    before = identity.data_files(named)
    assert set(before) == {"shapes"}
    os.utime(folder / "round" / "1.png")
    (folder / ".hidden").write_text("x")
    assert identity.data_files(named) == before, "times and hidden files do not count"
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save(folder / "round" / "1.png")
    edited = identity.data_files(named)
    assert edited != before
    shutil.move(folder / "round" / "1.png", folder / "square" / "9.png")
    assert identity.data_files(named) not in (before, edited), "the class of an image counts"
    monkeypatch.setattr(contents, "LARGE", 10)  # bytes: from here on, digests are kept between processes
    monkeypatch.setattr(contents, "SETTLED_NS", 0)
    whole = identity.data_files(named)
    (kept,) = (tmp_path / "cache" / "contents").glob("*.json")
    assert len(json.loads(kept.read_text())) == 6
    contents._digest_content.cache_clear()
    monkeypatch.setattr(contents, "_digest_content", lambda *_: pytest.fail("an unchanged file is read again"))
    assert identity.data_files(named) == whole


def test_outputs_inside_the_data_folder_are_no_data(own, tmp_path):
    (tmp_path / "a.csv").write_text("1\n")
    named = job({"folder": "."}, tmp_path)
    before = identity.data_files(named)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "metrics.jsonl").write_text("{}\n")
    assert identity.data_files(named) == before
