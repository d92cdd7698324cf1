"""The answer of a trained NumPy model to one drawn image: the probability of each class as bars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dl_lab.show import plots
from dl_lab.training.scratch import ScratchLearner
from dl_lab.training.session import Callback, Session
from dl_lab.types import Metrics, Tally, UserError


class Probe(Callback):
    """Draws the class probabilities of a drawn image at the end of the fit.

    Args:
        rows: The rows of the image: "#" is a pixel of `intensity`, "." a pixel of zero.
        intensity: The intensity, in the units that the model is trained in.

    Raises:
        ValueError: The rows have different lengths, or other characters.
        UserError: The model gives no probabilities, or takes another size. This is checked when the fit starts.
    """

    imports = plots.IMPORTS

    def __init__(self, rows: Sequence[str], intensity: float = 1.0) -> None:
        if not rows or len({len(row) for row in rows}) != 1 or set("".join(rows)) - set("#."):
            raise ValueError("a probe is rows of equal length made of '#' and '.'")
        self.x = np.array([[intensity * (pixel == "#") for row in rows for pixel in row]])  # (1, n_features)

    def fit_start(self, session: Session) -> None:
        """Refuse a model that gives no probabilities for the image."""
        self._find_probabilities(session)

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        """Draw the probabilities."""
        p = self._find_probabilities(session)
        names = session.dataset.class_names or tuple(str(i) for i in range(len(p)))
        values = dict(zip(names, p.tolist(), strict=True))
        figure = plots.bars(values, "a drawn digit the model has never seen", "class", "probability")
        rows = [{"class": name, "probability": value} for name, value in values.items()]
        session.run.figure("probe", figure, rows, session.step)

    def _find_probabilities(self, session: Session) -> np.ndarray:
        """Return the probability of each class (n_classes,)."""
        learner = session.learner
        probabilities = learner.probabilities() if isinstance(learner, ScratchLearner) else None
        if probabilities is None:
            raise UserError("The probe needs a NumPy model that gives probabilities: use callbacks.probe=null.")
        try:
            return probabilities(self.x)[0]
        except ValueError as error:
            raise UserError(f"The probe does not fit ({error}): callbacks.probe=null leaves it out.") from error
