"""Orders and events come back unchanged from their JSON form."""

from __future__ import annotations

import math
import typing

import pytest

from dl_lab.sweeps.backends import protocol
from dl_lab.sweeps.backends.protocol import CheckJobs, Exited, Memory, Prepare, Progress, RunJob, from_line, to_line

CONFIG = {"procedure": {"_target_": "x.Y", "rate": 0.1, "none": None, "names": ["ä", "b\n"]}}


@pytest.mark.parametrize(
    "message",
    [
        Prepare(["a.B"], ["optuna"], [CONFIG]),
        RunJob(3, "folder", CONFIG, {"model": "mlp"}, ["seed=1"], {"a.json": "{}"}, {"host": "h"}, 2, solo=False),
        CheckJobs(-1, [[0, CONFIG], [4, CONFIG]]),
        Progress(3, 1, 5, 10, 100, 2.5, lane=1),
        Memory(0, 1, 2),
        Exited(3, -9),
    ],
)
def test_a_message_is_one_line_and_comes_back_unchanged(message):
    line = to_line(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert from_line(line, (type(message),)) == message


def test_numbers_that_are_not_finite_come_back():
    job = RunJob(0, "", {"lr": math.inf, "momentum": math.nan}, {}, [], {}, {}, 1)
    config = from_line(to_line(job), protocol.TASKS).config
    assert config["lr"] == math.inf
    assert math.isnan(config["momentum"])


def test_a_reader_refuses_a_message_of_another_kind():
    with pytest.raises(TypeError, match="Exited"):
        from_line(to_line(Exited(3, -9)), protocol.ORDERS)


def test_every_order_and_event_has_a_json_form():
    kinds = {*typing.get_args(protocol.Order), *typing.get_args(protocol.Event)}
    assert kinds == set(protocol._KINDS.values())
