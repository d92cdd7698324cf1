"""How long a training waits for its batches: a clock around some of its updates."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

CLOCKED = 11  # one update in 11 is timed: a prime, because the workers of a DataLoader take turns of 2, 4 or 8
LONGEST_WAIT = 8  # updates: a slow loader of 8 workers delivers 8 batches, and the next one comes this much later
LEAST_SECONDS = 2.0  # of a training that is judged: in a shorter one, a pause of a busy computer is a large share


@dataclass
class WaitingClock:
    """Times one update in `CLOCKED`, and the wait for its batch.

    Attributes:
        waits: Seconds between the end of an update and the batch of the next one, for some updates of all epochs.
        works: Seconds of these updates and of the first one in each epoch.
    """

    waits: list[float] = field(default_factory=list)
    works: list[float] = field(default_factory=list)
    _ended_at: float = 0.0  # 0 where the time since is no wait for a batch
    _began_at: float = 0.0

    def begin_epoch(self) -> None:
        """Forget the time since the last update: it was a validation."""
        self._ended_at = 0.0

    def begin_wait(self) -> None:
        """Begin to wait for the batch of an update that is timed."""
        self._ended_at = time.perf_counter()

    def begin_update(self) -> None:
        """End the wait."""
        self._began_at = time.perf_counter()
        if self._ended_at:
            self.waits.append(self._began_at - self._ended_at)

    def end_update(self) -> None:
        """End the update."""
        self.works.append(time.perf_counter() - self._began_at)

    def share(self, n_updates: int) -> float | None:
        """Return the share of the time that a training of `n_updates` waited; None if it was too short to tell."""
        if not self.waits or not self.works:
            return None
        share = waiting_share(self.waits, self.works)
        return share if n_updates * median(self.works) >= LEAST_SECONDS * (1 - share) else None


def waiting_share(waits: Sequence[float], works: Sequence[float]) -> float:
    """Return the share of the time that a training waits for its next batch.

    A wait counts as at most LONGEST_WAIT typical updates: a longer one is a computer that was busy with something else.

    Args:
        waits: Seconds between the end of an update and the start of the next one, for some updates.
        works: Seconds of some updates.
    """
    longest = LONGEST_WAIT * median(works)
    waited = sum(min(wait, longest) for wait in waits) / len(waits)
    worked = sum(min(work, longest) for work in works) / len(works)
    return waited / (waited + worked) if waited + worked > 0 else 0.0
