"""dl-lab: deep-learning experiments from YAML, from the command line or from Python.

In a notebook:

    run = dl_lab.train(["model=mlp", "trainer.max_epochs=3"])
    table = dl_lab.list_runs()
    model = dl_lab.load("last").model
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dl_lab.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dl_lab.jobs.loading import Loaded
    from dl_lab.jobs.python import Finished, Swept

__all__ = ["__version__", "list_runs", "load", "sweep", "train"]


def train(overrides: Sequence[str] = (), config_dir: str | None = None, allow: Sequence[str] = ()) -> Finished:
    """Run one job, as `dl-lab overrides` does.

    Args:
        overrides: The words of the command line: `["model=mlp", "optimizer.lr=0.01"]`.
        config_dir: A folder of your own configs. By default the project's.
        allow: Your own packages that the config may use, besides those of a project that you trust.

    Returns:
        The run: its folder and its metrics. `.load()` gives the model and the data.

    Raises:
        UserError: The run cannot start, or it failed. The message says why.
    """
    from dl_lab.jobs import python

    return python.train(overrides, config_dir, allow)


def sweep(overrides: Sequence[str], config_dir: str | None = None, allow: Sequence[str] = ()) -> Swept:
    """Run a sweep in processes of its own, as `dl-lab -m overrides` does.

    Args:
        overrides: The words of the command line: `["optimizer.lr=0.1,0.01", "seed=0,1"]`.
        config_dir: A folder of your own configs. By default the project's.
        allow: Your own packages that the config may use.

    Returns:
        The sweep: its folder, and its results as a table.

    Raises:
        UserError: The sweep failed. The message holds what the command printed.
    """
    from dl_lab.jobs import python

    return python.sweep(overrides, config_dir, allow)


def list_runs(outputs: str | Path | None = None) -> Any:
    """List the runs below a folder with their settings and metrics.

    Args:
        outputs: The folder. By default the project's outputs.

    Returns:
        A pandas DataFrame with one row a run. Without pandas, a list of dicts.
    """
    from dl_lab.jobs import python

    return python.list_runs(outputs)


def load(run: str | Path, outputs: str | Path | None = None) -> Loaded:
    """Load the model of a finished run with its trained weights, its data set and its config.

    Args:
        run: The run's folder, the id at the end of the folder's name, or "last".
        outputs: The folder in which the runs lie. By default the project's outputs.

    Raises:
        UserError: There is no such run, or the run has trained no model.
    """
    from dl_lab import project
    from dl_lab.jobs import loading

    return loading.load(run, project.outputs() if outputs is None else outputs)
