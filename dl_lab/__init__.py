"""dl-lab: deep-learning experiments from YAML. In a notebook: `run = dl_lab.load("last")`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from dl_lab.loading import Loaded

__version__ = "0.1.0"


def load(run: str | Path, outputs: str | Path = "outputs") -> Loaded:
    """The model with its trained weights, the data set and the config of a finished run.

    run: its folder, the id at the end of the folder's name, or "last". Raises UserError in plain words.
    """
    from dl_lab import loading

    return loading.load(run, outputs)
