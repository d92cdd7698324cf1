"""Every ready sweep: it opens with a question, expands, each of its jobs fits, and its first job makes a step."""

from __future__ import annotations

import os
from pathlib import Path

import dl_lab.conf
import pytest

from dl_lab.commands import check
from dl_lab.jobs.rehearsal import rehearse

SWEEPS = sorted(path for path in (Path(dl_lab.conf.__file__).parent / "sweep").glob("*.yaml"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_is_fine(path, capsys, monkeypatch):
    rehearsed = []

    def rehearse_the_first(config):
        """A step of every job takes minutes in all; DL_LAB_SLOW=1 makes them."""
        if not rehearsed or "DL_LAB_SLOW" in os.environ:
            rehearse(config)
        rehearsed.append(config)

    monkeypatch.setattr(check, "rehearse", rehearse_the_first)
    assert "?" in path.read_text().splitlines()[0]
    assert check.main(["-m", f"sweep={path.stem}"]) == 0
    printed = capsys.readouterr().out
    assert "are fine" in printed
    assert printed.count("experiment=") >= 2, "a sweep of one job"
    assert rehearsed
