"""Starts the processes of one job without torchrun.

torchrun imports torch once more, and each of its processes does too. These processes are forked (forked_commands.py).
They find each other through a store of the test's own process, as torchrun's processes do through torchrun's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from torch.distributed import TCPStore


class Ranks:
    """The processes of one job.

    Attributes:
        processes: The processes, by rank.
    """

    def __init__(self, folder: Path, n: int, *arguments: str) -> None:
        """Start n processes with the same arguments.

        Args:
            folder: Their working folder. Their temporary folder is `tmp` in it.
            n: The number of processes.
            arguments: The words after `dl-lab`.
        """
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        shared = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(folder / "tmp"),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self._store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is there already
            "TORCHELASTIC_RESTART_COUNT": "0",
            "WORLD_SIZE": str(n),
            "LOCAL_WORLD_SIZE": str(n),
        }
        self.processes: list[subprocess.Popen] = []
        for rank in range(n):
            process = subprocess.Popen(
                [sys.executable, "-m", "dl_lab", *arguments],
                cwd=folder,
                env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self.processes.append(process)

    def send_signal(self, number: int) -> None:
        """Send a signal to every process, as torchrun does."""
        for process in self.processes:
            process.send_signal(number)

    def finish(self) -> tuple[list[int], str]:
        """Wait for every process. Returns their exit statuses, and what all of them printed."""
        texts = [process.communicate(timeout=200)[0] for process in self.processes]
        return [process.returncode for process in self.processes], "".join(texts)


def run_ranks(folder: Path, n: int, *arguments: str) -> str:
    """Run n processes of one job to their end. Returns what they printed."""
    statuses, text = Ranks(folder, n, *arguments).finish()
    assert statuses == [0] * n, text
    return text
