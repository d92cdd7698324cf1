"""The protocol of procedures: what a user's own procedure may leave out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import yaml

from dl_lab.configs.catalogue import SHIPPED
from dl_lab.configs.targets import locate
from dl_lab.procedures.protocol import Procedure, complete


def only_runs(run) -> dict[str, float]:
    return {"answer": 42.0}


class Rehearses:
    def __call__(self, run):
        return {}

    def rehearse(self):
        return {"val/loss": 1.0}


def test_a_plain_function_is_a_procedure_that_describes_and_rehearses_nothing():
    procedure = complete(only_runs)
    assert procedure(None) == {"answer": 42.0}  # pyright: ignore[reportArgumentType]
    assert procedure.describe() == {}
    assert procedure.rehearse() == {}
    assert procedure.training() is None


def test_a_method_of_ones_own_is_kept():
    procedure = complete(Rehearses())
    assert procedure.rehearse() == {"val/loss": 1.0}
    assert procedure.describe() == {}


def test_the_parts_of_a_fit_of_ones_own_are_found():
    parts = SimpleNamespace(dataset=1, learner=2, trainer=3)
    assert complete(parts).training() is parts


FILES = sorted((SHIPPED / "procedure").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shipped_procedure_follows_the_protocol(path):
    target = yaml.safe_load(path.read_text())["_target_"]
    assert issubclass(locate("procedure", target), Procedure)
