"""The dl-lab command: a verb, or Hydra's overrides and flags for a training. This file imports nothing heavy."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import importlib
import io
import os
import pkgutil
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence

from dl_lab import commands, project
from dl_lab.commands import HYDRA_FLAGS, MULTIRUN
from dl_lab.types import ConfigError, Interrupted, UserError
from dl_lab.version import __version__

RUNS_OWN_CODE = ("check", "doctor", "evaluate", "export", "predict", "reproduce", "resume", "sweep", "tune", "verify")


def verbs() -> list[str]:
    """List the verbs: each is a module of dl_lab.commands."""
    names = [module.name.rstrip("_") for module in pkgutil.iter_modules(commands.__path__)]
    return sorted(name for name in names if not name.startswith("_"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: The words after `dl-lab`. None: this process is the command, and ends with the status.

    Returns:
        The exit status: 0, or 1 (failed), 2 (wrong input), 130 (interrupted).
    """
    if argv is not None:
        return _run(list(argv))
    _prepare_streams()
    _shorten_warnings()
    status = _run(sys.argv[1:])
    _leave(status)
    return status


def _prepare_streams() -> None:
    """Let every text be printed, whatever the environment has made of the standard streams.

    A stream that was closed (`dl-lab ... >&-`, some schedulers) writes to nowhere, and no later file gets its number. A
    pipe or a file gets UTF-8, as all our files. A terminal that lacks a character shows a question mark.
    """
    opened = os.open(os.devnull, os.O_RDWR)
    while opened <= 2:
        os.set_inheritable(opened, True)
        opened = os.open(os.devnull, os.O_RDWR)
    os.close(opened)
    sys.stdin = sys.stdin or os.fdopen(os.open(os.devnull, os.O_RDONLY), encoding="utf-8")
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper):
            continue
        if stream.isatty() and stream.encoding.lower() not in ("utf-8", "utf8"):
            stream.reconfigure(errors="replace")
        else:  # a name of a file may hold bytes that are no text: they go out as they came in
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")


def _shorten_warnings() -> None:
    """Print a warning of ours as a sentence. Python would put a file and a line of our code before it."""
    own = os.path.dirname(__file__)
    of_python = warnings.formatwarning

    def format_warning(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if category is UserWarning and filename.startswith(own):
            return f"Warning: {message}\n"
        return of_python(message, category, filename, lineno, line)

    warnings.formatwarning = format_warning


def _leave(status: int) -> None:
    """End this process without taking every object apart, which takes 0.1 s once torch is loaded.

    The kernel frees the memory anyway. As Python does, this function first joins the threads, runs the exit functions
    and flushes the output. Two of these steps have no public name. Where Python lacks one of them, the process ends in
    Python's own way.
    """
    join_threads = getattr(threading, "_shutdown", None)
    run_exit_functions = getattr(atexit, "_run_exitfuncs", None)
    if join_threads is None or run_exit_functions is None:
        return
    join_threads()
    run_exit_functions()
    with contextlib.suppress(OSError, ValueError):  # the reader has closed the pipe: `dl-lab runs | head`
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _run(argv: list[str]) -> int:
    # Before torch loads. Threads that wait then sleep. Spinning threads would hold cores that other work needs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        status = _dispatch(argv)
        sys.stdout.flush()  # here, where a full disk can still be reported
        return status
    except Interrupted as stop:
        if os.environ.get("RANK", "0") == "0":
            print(stop, file=sys.stderr)
        return stop.exit_code
    except UserError as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        rank = os.environ.get("RANK", "0")
        if rank == "0":
            _complain(str(error))
        elif not isinstance(error, ConfigError):  # all ranks find the same mistake in a config: rank 0 reports it
            _complain(str(error), f" (rank {rank})")
        return error.exit_code
    except SystemExit as end:  # argparse has printed its help or an error
        if traceback.extract_tb(end.__traceback__)[-1].filename != argparse.__file__ and (place := _own_place(end)):
            _complain(f"The code ended the program, sys.exit: {end}{place}")
            return 1
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return Interrupted.exit_code
    except BrokenPipeError:  # `dl-lab runs | head`
        sys.stderr.close()
        return 0
    except Exception as error:
        message = "" if os.environ.get("HYDRA_FULL_ERROR") else _explain(error)
        if not message:
            raise
        _complain(message)
        return 1


def _explain(error: Exception) -> str:
    """Say what the system, or the user's own code, has complained of; "" for a bug of ours."""
    if isinstance(error, OSError):
        name = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{name}."
    place = _own_place(error)
    return f"{type(error).__name__}: {error}{place}\n  HYDRA_FULL_ERROR=1 shows the whole traceback." if place else ""


def _own_place(error: BaseException) -> str:
    """Return the line of the user's own code that an error went through; "" for none."""
    from dl_lab.configs import own_place

    return own_place(error)


def _complain(message: str, who: str = "") -> None:
    """Print an error: on a terminal with a red `error:` and wrapped at words; elsewhere as it is."""
    if not sys.stderr.isatty():
        print(f"dl-lab{who}: {message}", file=sys.stderr)
        return
    from dl_lab.show import tables
    from dl_lab.show.colours import paint

    width = tables.terminal_width()
    first, *rest = message.splitlines() or [""]
    lines = tables.wrap(f"error{who}: {first}", width, indent="  ")
    lines[0] = lines[0].replace("error", paint("error", "red", sys.stderr), 1)
    for line in rest:
        indent = " " * (len(line) - len(line.lstrip()))
        lines += tables.wrap(line, width, indent=f"{indent}  ") or [""]
    print("\n".join(lines), file=sys.stderr)


def _dispatch(argv: list[str]) -> int:
    if argv[:1] == ["--version"]:
        print(f"dl-lab {__version__}")
        return 0
    if argv[:1] in (["--help"], ["-h"], ["help"]):
        return _command("help")([])
    if argv and "=" not in argv[0] and not argv[0].startswith(("-", "+", "~")):
        if argv[0] in RUNS_OWN_CODE:
            project.ask()
        return _command(_verb(argv[0]))(argv[1:])
    if argv[:1] in (["-sc"], ["--shell-completion"]):  # as with any Hydra application: install=bash
        action, _, shell = (argv[1] if len(argv) > 1 else "").partition("=")
        return _command("completion")([shell] if action == "install" else ["--words"])
    if any(word in ("--help", "-h") for word in argv) and not any(word in MULTIRUN for word in argv):
        return _command("help")(argv)
    project.ask()
    shows_config = any(word.partition("=")[0] in HYDRA_FLAGS for word in argv)
    is_sweep = any(word in MULTIRUN for word in argv)
    return _command("sweep" if is_sweep and not shows_config else "train")(argv)


def _verb(word: str) -> str:
    if word in verbs():
        return word
    import difflib

    near = difflib.get_close_matches(word, verbs(), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    if "." in word:
        raise ConfigError(f"{word} has no value: write {word}=VALUE.")
    known = [verb for verb in verbs() if verb not in ("help", "train")]
    raise ConfigError(
        f"There is no verb {word!r}.{hint}\n  verbs: {', '.join(known)}\n  to train: overrides like key=value"
    )


def _command(verb: str) -> Callable[[Sequence[str]], int]:
    """Return the `main` of a verb. The module of `list` is called `list_`, because `list` is a builtin."""
    names = {module.name.rstrip("_"): module.name for module in pkgutil.iter_modules(commands.__path__)}
    return importlib.import_module(f"dl_lab.commands.{names[verb]}").main
