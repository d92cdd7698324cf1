"""The protocol of procedures: what a user's own procedure may leave out."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import yaml

from dl_lab.configs.catalogue import SHIPPED
from dl_lab.configs.targets import locate
from dl_lab.procedures.protocol import Procedure, complete
from dl_lab.types import ConfigError, UserError


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
    class Fits:
        dataset, learner, trainer = 1, 2, 3

        def __call__(self, run):
            return {}

    parts = Fits()
    assert complete(parts).training() is parts


def takes_nothing():
    return {}


def takes_a_rate(run, lr):
    return {"lr": lr}


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (SimpleNamespace(), r"SimpleNamespace must have a method __call__\(self, run\)"),
        (takes_nothing, "takes_nothing must take one argument that the config does not give: the run"),
        (partial(takes_a_rate), "takes_a_rate must take one argument that the config does not give: the run"),
    ],
)
def test_what_cannot_be_called_with_a_run_is_refused_before_a_run_is_made(own, words):
    with pytest.raises(ConfigError, match=words):
        complete(own)


def test_a_function_with_its_arguments_from_the_config_is_a_procedure():
    assert complete(partial(takes_a_rate, lr=0.1))(None) == {"lr": 0.1}  # pyright: ignore[reportArgumentType]


def test_facts_of_ones_own_are_a_dictionary():
    class Describes:
        def __call__(self, run):
            return {}

        def describe(self):
            return [1, 2]

    with pytest.raises(UserError, match=r"Describes.describe\(\) must return a dictionary of facts"):
        complete(Describes()).describe()


FILES = sorted((SHIPPED / "procedure").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shipped_procedure_follows_the_protocol(path):
    target = yaml.safe_load(path.read_text())["_target_"]
    assert issubclass(locate("procedure", target), Procedure)
