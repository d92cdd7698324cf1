"""The citation file names the version of the package."""

from __future__ import annotations

from pathlib import Path

import yaml

from dl_lab.version import __version__


def test_the_citation_names_this_version():
    citation = yaml.safe_load((Path(__file__).resolve().parents[1] / "CITATION.cff").read_text())
    assert citation["version"] == __version__
