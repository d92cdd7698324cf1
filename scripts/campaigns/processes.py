"""Starting dl-lab in processes of its own, killing them, and finding what they left behind.

Importing torch is most of what a short command costs. So most trials fork their commands from a process that has
imported it, as the tests do (tests/support/forked_commands.py). Every fifth trial starts them as a user does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))
from forked_commands import ForkedCommands

REAL_STARTS = 5  # one trial of so many starts its commands as a user does
COMMANDS = ForkedCommands()
COMMANDS.install()
# Commands are forked only if these are the same here: Python and torch read them while they start.
os.environ.update(OMP_NUM_THREADS="1", PYTHONHASHSEED="0")
MARKER = "DL_LAB_CAMPAIGN"  # an environment variable that every process of a trial inherits
PATIENCE = 600.0  # seconds until a command counts as hung


class Problem(Exception):
    """What a trial found: one sentence."""


class Skip(Exception):
    """Why a trial cannot be made on this machine."""


class TooLate(Skip):
    """What was over before the trial could disturb it. Another instant may do."""


@dataclass
class Trial:
    """One trial: its folder, and the processes that it starts.

    Args:
        folder: an empty folder; the commands run in it.
        environment: variables beside those of this process.
    """

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `dl-lab arguments`. What it prints goes to output.txt."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ours = {MARKER: str(self.folder), "COLUMNS": "120"}
        with (self.folder / "output.txt").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "dl_lab", *arguments],
                cwd=self.folder,
                env={**os.environ, **ours, **self.environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def run(self, *arguments: str, codes: Sequence[int] = (0,)) -> str:
        """Run `dl-lab arguments` to its end and return what it printed.

        Raises:
            Problem: it printed a traceback, hung, or ended with another exit code than `codes`.
        """
        before = len(self.output())
        process = self.start(*arguments)
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Problem(f"dl-lab {' '.join(arguments)} did not end in {PATIENCE:.0f} seconds") from None
        text = self.output()[before:]
        if "Traceback (most recent call last)" in text:
            raise Problem(f"dl-lab {' '.join(arguments)} printed a traceback: {text[-300:]!r}")
        if code not in codes:
            raise Problem(f"dl-lab {' '.join(arguments)} ended with {code}: {text[-300:]!r}")
        return text

    def output(self) -> str:
        """What the process has printed so far."""
        path = self.folder / "output.txt"
        return path.read_text(errors="replace") if path.exists() else ""

    def living(self) -> list[int]:
        """The processes of this trial that are alive: they work in its folder, or inherited its variable."""
        wanted = f"{MARKER}={self.folder}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                works_here = Path(os.readlink(entry / "cwd")).is_relative_to(self.folder)
                if state != "Z" and (works_here or wanted in (entry / "environ").read_bytes().split(b"\0")):
                    found.append(int(entry.name))
            except OSError:  # it ended meanwhile
                continue
        return found

    def expect_no_orphan(self) -> None:
        """Raise Problem if a process of this trial outlives its command by ten seconds."""
        if not wait_until(lambda: not self.living(), 10):
            left = self.living()
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            raise Problem(f"{len(left)} processes were left behind")


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    """Wait until the condition holds; False if it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def parent_of(pid: int) -> int:
    """The process that started this one; 0 where there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0
