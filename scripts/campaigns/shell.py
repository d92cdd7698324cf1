"""One process that runs many commands, for trials where a process each would cost too much."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

PATIENCE = 120.0  # seconds for one command
INSIDE = Path(__file__).with_name("inside.py")


class Shell:
    """A process that runs dl-lab commands one after the other, in one folder. A new one replaces one that died."""

    _open: ClassVar[dict[Path, Shell]] = {}

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.process = self._start()

    @classmethod
    def at(cls, folder: Path) -> Shell:
        """The shell of this folder."""
        if folder not in cls._open:
            cls._open[folder] = cls(folder)
        return cls._open[folder]

    @classmethod
    def close_all(cls) -> None:
        """End all shells."""
        while cls._open:
            _, shell = cls._open.popitem()
            shell.process.kill()
            shell.process.wait()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(INSIDE)],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def _stop_after(self, seconds: float) -> threading.Timer:
        """Kill the process unless the timer is cancelled: a command that hangs is a finding, not an end."""
        timer = threading.Timer(seconds, self.process.kill)
        timer.start()
        return timer

    def run(self, words: list[str]) -> dict[str, Any]:
        """Run `dl-lab words`; returns what inside.py says about it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        timer = self._stop_after(PATIENCE)
        line = self.process.stdout.readline()
        timer.cancel()
        if not line:
            code = self.process.wait()
            self.process = self._start()
            return {"code": code, "text": "", "error": f"the process died with {code}, or did not answer", "events": []}
        return json.loads(line)
