"""The dl-lab command: a verb, or Hydra overrides and flags that train. Imports nothing heavy."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import pkgutil
import sys
import threading
from collections.abc import Sequence

from dl_lab import __version__, commands
from dl_lab.commands import HYDRA_FLAGS, MULTIRUN
from dl_lab.types import ConfigError, Interrupted, UserError


def verbs() -> list[str]:
    """The verbs are the modules of dl_lab.commands."""
    names = [module.name.rstrip("_") for module in pkgutil.iter_modules(commands.__path__)]
    return sorted(name for name in names if not name.startswith("_"))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with 0, or 1 (failed), 2 (wrong input), 130 (interrupted).

    argv: of a caller that goes on afterwards; None: this process is the command.
    """
    status = _run(list(sys.argv[1:] if argv is None else argv))
    if argv is None:
        _leave(status)
    sys.exit(status)


def _leave(status: int) -> None:
    """End as Python does, but without taking every object apart: 0.1 s with torch loaded, for what the kernel frees."""
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]  # waits for threads
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):  # nobody reads any more: `dl-lab runs | head`
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _run(argv: list[str]) -> int:
    # Before torch loads: waiting threads sleep instead of spinning, which on a busy machine holds the cores that the
    # work needs (the default run beside a test suite, once: 12.2 s spinning, 4.0 s not; alone: 3.6 s and 4.0 s).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        status = _dispatch(argv)
        sys.stdout.flush()  # a full disk is to be noticed while it can be said
        return status
    except Interrupted as stop:
        if os.environ.get("RANK", "0") == "0":
            print(stop, file=sys.stderr)
        return stop.exit_code
    except UserError as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        rank = os.environ.get("RANK", "0")  # torchrun's processes find the same mistakes: one of them says it
        if rank == "0" or not isinstance(error, ConfigError):
            print(f"dl-lab{'' if rank == '0' else f' (rank {rank})'}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return Interrupted.exit_code
    except BrokenPipeError:  # `dl-lab runs | head`
        sys.stderr.close()
        return 0
    except OSError as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        name = f" ({error.filename})" if error.filename else ""
        print(f"dl-lab: {error.strerror or error}{name}.", file=sys.stderr)
        return 1


def _dispatch(argv: list[str]) -> int:
    if argv[:1] == ["--version"]:
        print(f"dl-lab {__version__}")
        return 0
    if argv[:1] in (["--help"], ["-h"], ["help"]):
        return _command("help")([])
    if argv and "=" not in argv[0] and not argv[0].startswith(("-", "+", "~")):
        return _command(_verb(argv[0]))(argv[1:])
    shows = any(word.partition("=")[0] in HYDRA_FLAGS for word in argv)
    return _command("sweep" if not shows and any(word in MULTIRUN for word in argv) else "train")(argv)


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


def _command(verb: str):
    """`main(argv) -> exit status` of a verb; `list_` is how a verb that shadows a builtin is spelled."""
    names = {module.name.rstrip("_"): module.name for module in pkgutil.iter_modules(commands.__path__)}
    return importlib.import_module(f"dl_lab.commands.{names[verb]}").main
