"""Damaged files of run and sweep folders: one sentence, never a traceback."""

from __future__ import annotations

import json

import pytest
import yaml

from dl_lab.runs import records
from dl_lab.runs.files import read_records
from dl_lab.sweeps import plan_file
from dl_lab.types import UserError

JOB = {"number": 0, "id": "0000aaaa", "overrides": ["seed=0"]}


@pytest.mark.parametrize("line", [b"\xff{}", b"[1]", b"3", b'{"epoch": ', b"null", b"[" * 100_000])
def test_a_damaged_record_is_named_by_file_and_line(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 1}\n' + line + b'\n{"epoch": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged: its line 2 is no record"):
        read_records(path)


def test_a_last_line_cut_short_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 1}\n{"epoch": \xff')
    assert read_records(path) == [{"epoch": 1}]


def test_a_folder_in_the_place_of_a_file_of_records(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_records(tmp_path)


@pytest.mark.parametrize(
    "jobs", [3, None, [3], [{**JOB, "number": "0"}], [{**JOB, "overrides": None}], [{"number": 0}], {"a": 1}]
)
def test_a_plan_whose_jobs_are_damaged(tmp_path, jobs):
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"key": "a", "jobs": jobs}))
    with pytest.raises(UserError, match="is not a readable plan"):
        plan_file.read_plan(tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"[1", b"jobs"])
def test_a_plan_that_is_no_plan(tmp_path, content):
    (tmp_path / "sweep.yaml").write_bytes(content)
    with pytest.raises(UserError, match="is not a readable plan"):
        plan_file.read_plan(tmp_path)


def test_frozen_configs_without_a_number_or_a_config(tmp_path):
    (tmp_path / "configs.jsonl").write_text(
        json.dumps({"number": 0, "config": {}}) + "\n" + json.dumps({"number": 1}) + "\n"
    )
    with pytest.raises(UserError, match="line 2 is no job"):
        plan_file.read_frozen(tmp_path)


def test_a_summary_of_foreign_values_keeps_what_is_a_number(tmp_path):
    (tmp_path / "status.json").write_text('{"state": "done"}')
    foreign = {"metrics": {"val/loss": {}, "val/accuracy": 0.5, "test/loss": None, "test/accuracy": True}}
    foreign |= {"epochs": "many", "parameters": [], "trainable": 3, "test_looks": "often"}
    (tmp_path / "summary.json").write_text(json.dumps(foreign))
    record = records.read(tmp_path)
    assert record.metrics == {"val/accuracy": 0.5, "test/loss": None}
    assert (record.epoch, record.parameters, record.trainable, record.test_looks) == (None, None, 3, 0)
