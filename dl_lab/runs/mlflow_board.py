"""MLflow as a logger: one MLflow run for each run folder."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dl_lab.runs.board import Board, HParam
from dl_lab.runs.files import read_json, to_json, write_atomic
from dl_lab.types import Metrics, UserError

AT_ONCE = 1000  # the most metrics that MLflow takes in one request
MOST_PARAMS = 100  # the most parameters that MLflow takes in one request
LONGEST_VALUE = 500  # the most characters of a parameter


class MlflowBoard(Board):
    """Logs hyperparameters, scalars, figures and texts to an MLflow tracking server or store.

    A resumed run continues the MLflow run of its folder, whose id is in mlflow.json. MLflow cannot take back a value.
    So after a crash, the values since the last checkpoint occur twice.

    Args:
        tracking_uri: The server or store. Null takes MLFLOW_TRACKING_URI, or MLflow's own default.
        experiment: The name of the MLflow experiment.
    """

    def __init__(self, tracking_uri: str | None = None, experiment: str = "dl-lab") -> None:
        self.tracking_uri = tracking_uri
        self.experiment = experiment
        self._client: Any = None  # an MlflowClient, once MLflow is imported
        self._run_id = ""
        self._folder = Path()

    def another(self) -> MlflowBoard:
        """Return a new logger with the same settings."""
        return MlflowBoard(self.tracking_uri, self.experiment)

    def start(self, folder: Path, hparams: Mapping[str, HParam], config_text: str) -> None:
        """Begin an MLflow run, or continue that of the folder.

        Raises:
            UserError: MLflow is not installed, or its server does not answer.
        """
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Param
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise UserError("logger=mlflow needs MLflow: pip install 'dl-lab[mlflow]'.") from error
        self._folder = folder
        params = [Param(_key(name), str(value)[:LONGEST_VALUE]) for name, value in hparams.items()]
        try:
            self._client = MlflowClient(self.tracking_uri)
            self._run_id = (read_json(folder / "mlflow.json") or {}).get("run_id", "")
            if not self._run_id:
                self._run_id = self._client.create_run(self._experiment_id(), run_name=folder.name).info.run_id
                write_atomic(folder / "mlflow.json", to_json({"run_id": self._run_id}, indent=1))
                self._client.log_batch(self._run_id, params=params[:MOST_PARAMS])
                self._client.log_text(self._run_id, config_text, "config.yaml")
        except MlflowException as error:
            raise UserError(f"MLflow cannot log this run: {str(error).splitlines()[0]}") from error

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        return found.experiment_id if found else self._client.create_experiment(self.experiment)

    def scalars(self, values: Metrics, step: int) -> None:
        """Log values by name at a step."""
        self._log([(step, name, value) for name, value in values.items()])

    def series(self, name: str, values: Sequence[tuple[int, float]]) -> None:
        """Log the values of one scalar at many steps."""
        self._log([(step, name, value) for step, value in values])

    def _log(self, rows: Sequence[tuple[int, str, float]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_key(name), float(value), now, step) for step, name, value in rows]
        for first in range(0, len(metrics), AT_ONCE):
            self._client.log_batch(self._run_id, metrics=metrics[first : first + AT_ONCE])

    def image(self, name: str, png: bytes, step: int) -> None:
        """Log the file of the figure, which the run has just written."""
        path = self._folder / "figures" / f"{name}.png"
        if path.exists():
            self._client.log_artifact(self._run_id, str(path), "figures")

    def text(self, name: str, markdown: str, step: int = 0) -> None:
        """Log a text as a Markdown file."""
        self._client.log_text(self._run_id, markdown, f"texts/{_key(name)}.md")

    def finish(self, ok: bool) -> None:
        """Tell MLflow how the run ended."""
        if self._run_id:
            self._client.set_terminated(self._run_id, "FINISHED" if ok else "FAILED")


def _key(name: str) -> str:
    """Return a name in the characters that MLflow allows."""
    return re.sub(r"[^\w\-. /]", "_", name)
