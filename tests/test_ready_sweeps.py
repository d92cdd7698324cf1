"""Every ready sweep: it opens with a question, expands, and each of its jobs is found fine."""

from __future__ import annotations

from pathlib import Path

import dl_lab.conf
import pytest

from dl_lab.commands import check

SWEEPS = sorted(path for path in (Path(dl_lab.conf.__file__).parent / "sweep").glob("*.yaml"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_is_fine(path, capsys):
    assert "?" in path.read_text().splitlines()[0]
    assert check.main(["-m", f"sweep={path.stem}"]) == 0
    printed = capsys.readouterr().out
    assert "are fine" in printed
    assert printed.count("experiment=") >= 2, "a sweep of one job"
