"""Weights & Biases as a logger: one W&B run for each run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from dl_lab.runs.board import Board, HParam
from dl_lab.runs.files import read_json, to_json, write_atomic
from dl_lab.types import Metrics, UserError


class WandbBoard(Board):
    """Logs hyperparameters, scalars, figures and texts to Weights & Biases. Its files lie in the run's folder.

    The x axis is `step`, the number of updates. A resumed run continues the W&B run of its folder, whose id is in
    wandb.json. After a crash, the values since the last checkpoint occur twice.

    Args:
        project: The W&B project.
        entity: The W&B user or team. Null takes the user's own.
        mode: "online"; "offline" writes files that `wandb sync` uploads later; "disabled" does nothing.
    """

    def __init__(
        self,
        project: str = "dl-lab",
        entity: str | None = None,
        mode: Literal["online", "offline", "disabled"] = "online",
    ) -> None:
        self.project = project
        self.entity = entity
        self.mode: Literal["online", "offline", "disabled"] = mode
        self._wandb: Any = None  # the package, once it is imported
        self._run: Any = None

    def another(self) -> WandbBoard:
        """Return a new logger with the same settings."""
        return WandbBoard(self.project, self.entity, self.mode)

    def start(self, folder: Path, hparams: Mapping[str, HParam], config_text: str) -> None:
        """Begin a W&B run, or continue that of the folder.

        Raises:
            UserError: W&B is not installed, or cannot begin the run.
        """
        try:
            import wandb
        except ImportError as error:
            raise UserError("logger=wandb needs Weights & Biases: pip install 'dl-lab[wandb]'.") from error
        known = (read_json(folder / "wandb.json") or {}).get("run_id")
        self._wandb = wandb
        try:
            self._run = wandb.init(
                project=self.project,
                entity=self.entity,
                mode=self.mode,
                dir=str(folder),
                name=folder.name,
                id=known,
                resume="allow" if known else None,
                config=dict(hparams),
                settings=wandb.Settings(silent=True),
                reinit="create_new",
            )
        except (wandb.Error, OSError) as error:
            raise UserError(f"W&B cannot log this run: {str(error).splitlines()[0]}") from error
        write_atomic(folder / "wandb.json", to_json({"run_id": self._run.id}, indent=1))
        self._run.define_metric("*", step_metric="step")

    def scalars(self, values: Metrics, step: int) -> None:
        """Log values by name at a step."""
        self._run.log({**values, "step": step})

    def series(self, name: str, values: Sequence[tuple[int, float]]) -> None:
        """Log the values of one scalar at many steps."""
        for step, value in values:
            self._run.log({name: value, "step": step})

    def image(self, name: str, png: bytes, step: int) -> None:
        """Log a PNG."""
        import io

        from PIL import Image

        self._run.log({name: self._wandb.Image(Image.open(io.BytesIO(png))), "step": step})

    def text(self, name: str, markdown: str, step: int = 0) -> None:
        """Log a text in Markdown as HTML that keeps its line breaks."""
        import html

        self._run.log({name: self._wandb.Html(f"<pre>{html.escape(markdown)}</pre>"), "step": step})

    def finish(self, ok: bool) -> None:
        """End the W&B run."""
        if self._run is not None:
            self._run.finish(exit_code=0 if ok else 1)
