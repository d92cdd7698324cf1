"""Ctrl-C and SIGTERM are requests to stop: the run finishes its step, saves and ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

GRACE_SECONDS = 60.0  # between the request to stop and the kill


@dataclass
class StopSignals:
    """How often the user (or the system) has asked to stop."""

    count: int = 0

    @property
    def requested(self) -> bool:
        """Whether anybody has asked."""
        return self.count > 0


@contextlib.contextmanager
def count_stop_signals(most: int | None = None) -> Iterator[StopSignals]:
    """Count SIGINT and SIGTERM while the block runs, instead of ending at the first one.

    Only the main thread gets signals. In any other thread the count stays 0.

    Args:
        most: The number of signals to count. The next one raises KeyboardInterrupt. None: count all of them.
    """
    asked = StopSignals()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(signum: int, frame: FrameType | None) -> None:
        if most is not None and asked.count >= most:
            raise KeyboardInterrupt
        asked.count += 1

    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
