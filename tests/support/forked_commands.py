"""Starts `dl-lab` without its imports: a server that has imported everything forks for each command.

Most of what a short command costs is importing torch, 2 to 3 seconds of a core. `ForkedCommands.install()` replaces
`subprocess.Popen` in this process by a subclass that sends `[python, "-m", "dl_lab", ...]` to the server, and pytest
and Python files in the same way. The command is still a process of its own: its pid, signals, pipes, folder and
environment are those of the caller, and it ends as the real one does. Every other command starts as always, and so does
one whose environment has other values of the variables that are read while Python or torch starts.

Lines of a shell are forked too: `ForkedCommands.script()` is a `dl-lab` or a `python` that asks the same server.

A test whose subject is the start itself is marked `real_start`.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import types
from pathlib import Path
from typing import Any

from drawing import draw_figures

FIXED = ("PYTHON", "OMP_", "MKL_", "KMP_", "OPENBLAS_", "MALLOC_", "LD_", "GLIBC_", "CUDA_", "TORCH", "VIRTUAL_ENV")
OF_TORCHRUN = "TORCHELASTIC_"  # is read later, when the processes of a job look for each other
MOST_WORDS = 1 << 20  # bytes of a request: words and environment
OF_A_RUN = (
    "dl_lab.__main__",
    "dl_lab.configs.packaged",
    "dl_lab.datasets.sets.digits",
    "dl_lab.datasets.sets.table",
    "dl_lab.models.mlp",
    "dl_lab.procedures.fit",
    "dl_lab.runs.tensorboard",
    "dl_lab.show.class_plots",
    "dl_lab.sweeps.execute",
    "dl_lab.sweeps.start",
    "dl_lab.tasks.classification",
    "dl_lab.training.callbacks",
    "dl_lab.training.examination",
    "dl_lab.training.trainer",
    "hydra._internal.config_loader_impl",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "safetensors.torch",
    "scipy.special",
    "tensorboard.compat.proto.event_pb2",
    "tensorboard.compat.proto.summary_pb2",
)
MODULES = [["-m", "dl_lab"], ["-m", "pytest"]]
OF_PYTEST = ["-W", "ignore:Module already imported"]  # the server has imported what pytest would rewrite
_real_popen = subprocess.Popen
# A `dl-lab` or a `python` for a shell. It starts without site-packages, in hundredths of a second.
CLIENT = """
import json, os, signal, socket, sys
words = {first!r} + sys.argv[1:]
if words[:2] not in {modules!r} and words != ["-"]:
    os.execv({python!r}, [{python!r}, *words])
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, {most})
server.connect({address!r})
request = {{"words": words, "cwd": os.getcwd(), "env": dict(os.environ)}}
request |= {{"session": False, "draws": {draws}}}
socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
pid = int(server.recv(64))
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(pid, number))
status = int(server.recv(64) or -signal.SIGKILL)
sys.exit(status if status >= 0 else 128 - status)
"""


class ForkedCommands:
    """The server that this process asks: its own, started with the first command, or one that it was told of.

    Attributes:
        enabled: False while a test runs that wants the real start.
        draws: Whether the commands draw figures (tests/support/drawing.py).
        address: The path of the server's socket; "" where there is no server yet.
    """

    def __init__(self) -> None:
        self.enabled = True
        self.draws = True
        self.address = ""
        self._kept: tuple[object, ...] = ()  # what the server lives by
        self._owner = os.getpid()

    def install(self) -> None:
        commands = self

        class Popen(_ForkedPopen):
            forked_commands = commands

        subprocess.Popen = Popen

    def takes(self, words: Any, environment: dict[str, str] | None, options: dict[str, Any]) -> bool:
        """Whether the server can start this command."""
        if not self.enabled or os.getpid() != self._owner or not isinstance(words, list | tuple):
            return False
        is_program = len(words) > 1 and str(words[1]).endswith(".py")
        if words[0] != sys.executable or not (is_program or list(words[1:3]) in MODULES):
            return False
        if options.get("preexec_fn") or options.get("pass_fds") or options.get("shell"):
            return False
        return _fixed(os.environ if environment is None else environment) == _fixed(os.environ)

    def script(self, environment: dict[str, str], *first: str) -> str:
        """An executable file's text: a program for a shell that has this environment.

        Args:
            environment: The variables of the shell.
            first: The words after `python` that the program stands for: "-m" and "dl_lab" for `dl-lab`, none for
                `python`.
        """
        if not self.enabled or _fixed(environment) != _fixed(os.environ):
            return f'#!/bin/sh\nexec {shlex.join([sys.executable, *first])} "$@"\n'
        known = {"python": sys.executable, "first": list(first), "modules": MODULES, "most": MOST_WORDS}
        return f"#!{sys.executable} -IS\n" + CLIENT.format(**known, address=self.find_server(), draws=self.draws)

    def start(self, request: dict[str, Any], files: list[int]) -> tuple[int, socket.socket]:
        """Have the command forked; returns its pid, and the socket on which its exit status will come."""
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MOST_WORDS)
        server.connect(self.find_server())
        socket.send_fds(server, [json.dumps(request).encode()], files)
        return int(server.recv(64)), server

    def find_server(self) -> str:
        """Return the address of the server, and start one where there is none. It ends with this process."""
        if not self.address:
            folder = tempfile.TemporaryDirectory(prefix="forked-")
            self.address = str(Path(folder.name) / "socket")
            ours, its = socket.socketpair()
            with its, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as clients:
                clients.bind(self.address)
                clients.listen()
                passed = [its.fileno(), clients.fileno()]
                words = [sys.executable, __file__, *map(str, passed)]
                self._kept = ours, folder, _real_popen(words, pass_fds=passed, stdin=subprocess.DEVNULL)
        return self.address


def _fixed(environment: Any) -> dict[str, str]:
    """What Python and torch read while they start."""
    found = {}
    for name, value in environment.items():
        if name.startswith(FIXED) and not name.startswith(OF_TORCHRUN):
            found[name] = value
    return found


class _ForkedPopen(_real_popen):
    """subprocess.Popen, with a process that the server forks where it can."""

    forked_commands: ForkedCommands
    _status: socket.socket | None = None

    def __init__(self, args: Any, *others: Any, **options: Any) -> None:
        self._is_forked = not others and self.forked_commands.takes(args, options.get("env"), options)
        self._own_session = bool(options.get("start_new_session"))
        super().__init__(args, *others, **options)

    def _execute_child(self, args: Any, *others: Any) -> None:
        if not self._is_forked:
            super()._execute_child(args, *others)
            return
        cwd, env = others[4], others[5]
        pipes = others[9:15]  # of standard input, output and error: the end that is read, the end that is written
        request = {
            "words": [os.fsdecode(word) for word in args[1:]],
            "cwd": os.path.abspath(os.fsdecode(cwd or ".")),
            "env": dict(os.environ if env is None else env),
            "session": self._own_session,
            "draws": self.forked_commands.draws,
        }
        os.stat(request["cwd"])  # a missing folder is the caller's error, as in Popen
        given = [own if file == -1 else file for own, file in enumerate((pipes[0], pipes[3], pipes[5]))]
        try:
            self.pid, self._status = self.forked_commands.start(request, given)
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)

    def _ended(self, seconds: float | None) -> bool:
        """Whether the exit status has come, within so many seconds; None waits for it."""
        if self._status is None:
            return True
        if not select.select([self._status], [], [], seconds)[0]:
            return False
        told = self._status.recv(64)
        self._status.close()
        self._status = None
        self.returncode = int(told) if told else -signal.SIGKILL  # the server itself is gone
        return True

    def _internal_poll(self, *arguments: Any, **options: Any) -> int | None:
        if not self._is_forked:
            return super()._internal_poll(*arguments, **options)
        if self.returncode is None:
            self._ended(0)
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if not self._is_forked:
            return super()._wait(timeout=timeout)
        if self.returncode is None and not self._ended(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode


def serve(owner: socket.socket, clients: socket.socket) -> None:
    """Fork a command for each request of a tests' process, or of a script, until the owner has ended."""
    _import_everything()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker)
    told: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([owner, clients, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
        _tell(told)
        if owner in ready:
            return
        if clients not in ready:
            continue
        answer, _ = clients.accept()
        message, files, _, _ = socket.recv_fds(answer, MOST_WORDS, 3)
        if not message:  # the client has gone
            answer.close()
            continue
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            _become(json.loads(message), files, answer)
        for file in files:
            os.close(file)
        told[pid] = answer


def _tell(told: dict[int, socket.socket]) -> None:
    """Send the exit statuses of the commands that have ended."""
    for pid in list(told):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            with told.pop(pid) as answer:
                try:
                    answer.send(str(os.waitstatus_to_exitcode(status)).encode())
                except OSError:
                    continue  # nobody waits for it


def _become(request: dict[str, Any], files: list[int], answer: socket.socket) -> None:
    """In the forked process: be `python WORDS` as if it had just been started. Never returns."""
    status = 1
    try:
        if request["session"]:
            os.setsid()
        answer.send(str(os.getpid()).encode())
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.closerange(3, 4096)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode, closefd=False) for n, mode in enumerate("rww"))
        sys.stderr.reconfigure(line_buffering=True, errors="backslashreplace")
        sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
        draw_figures(request["draws"])
        _run(request["words"])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                status = status or 120
        os._exit(status)


def _run(words: list[str]) -> None:
    """Run a module or a program as Python does: `-m NAME ...`, `FILE.py ...`, or the text of standard input for `-`."""
    sys.path[0] = os.getcwd()
    if words[:2] == ["-m", "dl_lab"]:
        sys.argv = [sys.modules["dl_lab.__main__"].__file__ or "", *words[2:]]
        from dl_lab.cli import main

        main()
        return
    try:
        if words[0] == "-m":
            sys.argv = [*words[1:], *OF_PYTEST]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-":
            sys.argv = words
            program = types.ModuleType("__main__")
            sys.modules["__main__"] = program
            exec(compile(sys.stdin.read(), "<stdin>", "exec"), vars(program))
        else:
            sys.argv = words
            sys.path[0] = os.path.dirname(os.path.abspath(words[0]))
            runpy.run_path(words[0], run_name="__main__")
    finally:
        threading._shutdown()  # as Python does at its end
        atexit._run_exitfuncs()


def _import_everything() -> None:
    """Import what commands import, in the way they do."""
    import importlib
    import pkgutil

    from hydra.core.plugins import Plugins

    from dl_lab import commands, preload

    preload.torch()
    with preload.without_collections():
        for module in pkgutil.iter_modules(commands.__path__):
            importlib.import_module(f"dl_lab.commands.{module.name}")
        for name in OF_A_RUN:
            importlib.import_module(name)
        Plugins.instance()  # looks through the installed packages
    gc.set_threshold(50_000, 20, 100)  # as in tests/conftest.py


if __name__ == "__main__":
    sys.path.pop(0)  # this file's own folder; `python -m dl_lab` has the current folder in its place
    sys.path.insert(0, "")
    serve(socket.socket(fileno=int(sys.argv[1])), socket.socket(fileno=int(sys.argv[2])))
