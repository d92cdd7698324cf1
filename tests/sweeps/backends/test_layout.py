"""How many lanes a sweep gets, on which devices."""

from __future__ import annotations

import os

import pytest

from dl_lab.sweeps.backends import layout
from dl_lab.sweeps.backends.layout import Layout, plan_layout, visible_gpus
from dl_lab.types import UserError


def test_there_is_a_lane_for_each_gpu_or_core(monkeypatch, tmp_path):
    monkeypatch.setattr(layout, "visible_gpus", list)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert plan_layout("auto", "auto", None) == Layout(("",), 8, 1)
    assert plan_layout(2, "auto", None) == Layout(("",), 2, 4)
    monkeypatch.setattr(layout, "visible_gpus", lambda: ["0", "1"])
    assert plan_layout("auto", "auto", None) == Layout(("0", "1"), 1, 4, may_grow=True)
    assert plan_layout(6, "auto", 1) == Layout(("0", "1"), 3, 1)
    assert plan_layout("auto", "cpu", None).devices == ("",)
    with pytest.raises(UserError, match="neither auto nor a number"):
        plan_layout("many", "auto", None)


def test_gpus_are_found_without_torch(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert visible_gpus() == ["2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: A'\necho 'GPU 1: B'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert visible_gpus() == ["0", "1"]
