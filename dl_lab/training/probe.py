"""What a trained NumPy model makes of one drawn image: the probability of each class as bars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dl_lab import plots
from dl_lab.training.scratch import ScratchLearner
from dl_lab.training.trainer import Callback, Session
from dl_lab.types import Metrics, Tally, UserError


class Probe(Callback):
    """At the end of the fit: class probabilities of the image that `rows` draw, "#" being `intensity` and "." zero.

    The intensity is in the units the model is trained in. Raises ValueError for rows of different lengths; UserError
    at the start of the fit where the model gives no probabilities or takes another size.
    """

    def __init__(self, rows: Sequence[str], intensity: float = 1.0) -> None:
        if not rows or len({len(row) for row in rows}) != 1 or set("".join(rows)) - set("#."):
            raise ValueError("a probe is rows of equal length made of '#' and '.'")
        self.x = np.array([[intensity * (pixel == "#") for row in rows for pixel in row]])  # (1, n_features)

    def fit_start(self, session: Session) -> None:
        self._probabilities(session)

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        p = self._probabilities(session)
        names = session.dataset.class_names or tuple(str(i) for i in range(len(p)))
        values = dict(zip(names, p.tolist(), strict=True))
        figure = plots.bars(values, "a drawn digit the model has never seen", "class", "probability")
        session.run.figure("probe", figure, [{"class": k, "probability": v} for k, v in values.items()], session.step)

    def _probabilities(self, session: Session) -> np.ndarray:
        """(n_classes,)."""
        model = session.learner.model if isinstance(session.learner, ScratchLearner) else None
        if not hasattr(model, "probabilities"):
            raise UserError("The probe needs a NumPy model that gives probabilities: callbacks.probe=null leaves it out.")
        try:
            return model.probabilities(self.x)[0]  # pyright: ignore[reportAttributeAccessIssue]
        except ValueError as error:
            raise UserError(f"The probe does not fit ({error}): callbacks.probe=null leaves it out.") from error
