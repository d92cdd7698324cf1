"""Runs many dl-lab commands in one process and reports each as a line of JSON: `python inside.py`, commands on stdin.

Each line of the input is a JSON list of words; each line of the output is {"code", "text", "error", "events"}. `error`
is the exception that reached the top, which a user would see as a traceback. `events` are the processes, sockets and
files outside the current folder that the command started, opened or wrote.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import traceback
from typing import Any

OURS = ("git", "uname")  # what a run asks about the code and the machine
WATCHED = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "pty.spawn")
events: list[str] = []
here = os.path.realpath(os.getcwd())
scratch = os.path.realpath(tempfile.gettempdir())


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: note what a config must never cause."""
    if event == "subprocess.Popen" and arguments[0] in OURS:
        return
    if event in WATCHED:
        events.append(f"{event} {arguments[:2]!r}"[:200])
    elif event == "open" and isinstance(arguments[0], str) and _writes(arguments[1], arguments[2]):
        path = os.path.realpath(arguments[0])
        allowed = path.startswith((here, scratch, "/dev/", "/proc/")) or "__pycache__" in path
        if not allowed:
            events.append(f"write {path}")


def _writes(mode: Any, flags: Any) -> bool:
    by_mode = isinstance(mode, str) and any(letter in mode for letter in "wax+")
    by_flags = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return by_mode or by_flags


def execute(words: list[str]) -> dict[str, Any]:
    """Run one command in this process."""
    from dl_lab import cli

    events.clear()
    text, error, code = io.StringIO(), "", 0
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            code = cli.main(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:  # exactly what must not happen: the caller says so
            error = traceback.format_exc()
    return {"code": code, "text": text.getvalue(), "error": error, "events": list(events)}


def main() -> None:
    """Execute the jobs that arrive on stdin, and report what each one did."""
    from dl_lab import preload

    preload.torch()
    out = sys.stdout
    sys.addaudithook(watch)
    for line in sys.stdin:
        print(json.dumps(execute(json.loads(line))), file=out, flush=True)


if __name__ == "__main__":
    main()
