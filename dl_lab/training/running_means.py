"""The mean of the loss over all updates since the training began, as some courseworks print it."""

from __future__ import annotations

from dl_lab.runs.files import read_losses
from dl_lab.training.trainer import Callback, Session
from dl_lab.types import Metrics, Tally

NAME = "train/running_mean_loss"


class RunningMeanLoss(Callback):
    """Records train/running_mean_loss: the mean over the losses of all updates so far, each batch counted once.

    A loop that never empties its list of losses prints this number. As long as the loss falls, the number lies above
    the mean of the last epoch. TensorBoard shows it for every epoch; the summary has it for the whole training.
    """

    def epoch_end(self, session: Session, metrics: Metrics) -> None:
        """Show the mean so far."""
        session.run.board.scalars({NAME: _average_losses(session)}, session.step)

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        """Add the mean over the whole training to the final metrics."""
        metrics[NAME] = _average_losses(session)


def _average_losses(session: Session) -> float:
    losses = read_losses(session.run.folder)
    return sum(losses) / len(losses)
