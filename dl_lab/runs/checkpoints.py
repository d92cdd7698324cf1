"""Checkpoints that resume a run exactly. They hold tensors and plain types only and are checked when they are read.

`checkpoints/last.pt` is the newest one, `previous.pt` the one before it. `best.safetensors` and `last.safetensors` hold
weights alone.
"""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dl_lab.runs.files import write_atomic
from dl_lab.runs.random_state import random_state, set_random_state
from dl_lab.types import UserError

PLAIN = (bool, int, float, complex, str, bytes, bytearray, type(None), torch.Size, torch.dtype, torch.device)


def save(folder: Path, state: Mapping[str, object]) -> None:
    """Write last.pt, and keep the old one as previous.pt. A kill at any instant leaves at least one of them whole.

    Args:
        folder: The folder of checkpoints.
        state: Tensors and plain values.

    Raises:
        UserError: The state holds something else, which could not be read again.
    """
    refuse_unreadable(state)
    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    new = folder / "next.pt"
    write_atomic(new, buffer.getbuffer(), durable=True)
    if (folder / "last.pt").exists():
        os.replace(folder / "last.pt", folder / "previous.pt")
    os.replace(new, folder / "last.pt")


def refuse_unreadable(value: object, path: str = "") -> None:
    """Refuse a state that `load` could not read: `weights_only=True` takes tensors and plain values alone.

    Raises:
        UserError: The state holds a value of another type; the message has its path.
    """
    if isinstance(value, torch.Tensor) or type(value) in PLAIN:
        return
    if isinstance(value, dict) and type(value) in (dict, OrderedDict, Counter):
        for key, item in value.items():
            refuse_unreadable(key, f"{path}.{key}".lstrip("."))
            refuse_unreadable(item, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list | tuple | set) and type(value) in (list, tuple, set):
        for item in value:
            refuse_unreadable(item, path)
    else:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise UserError(
            f"A checkpoint cannot hold {path}, a {kind}. It takes tensors, numbers and texts, and lists and "
            "dictionaries of them: torch.from_numpy(array), number.item()."
        )


def save_own(folder: Path, state: Mapping[str, object], positions: Mapping[str, int]) -> None:
    """Write the state of a user's own loop, with the lengths of the records and the random states."""
    save(folder, {"own": dict(state), "positions": dict(positions), "random": random_state()})


def load_own(folder: Path) -> tuple[dict[str, Any] | None, dict[str, int]]:
    """Read the state of a user's own loop, and set the random states.

    Returns:
        The state and the lengths of the records; (None, {}) where there is no checkpoint.
    """
    whole = load(folder)
    if whole is None:
        return None, {}
    set_random_state(whole["random"])
    return whole["own"], whole["positions"]


def load(folder: Path) -> dict[str, Any] | None:
    """Read the newest readable checkpoint. Where one is truncated or corrupt, warn and take the one before it.

    Returns:
        The state; None where no checkpoint was written yet.

    Raises:
        UserError: None of the checkpoints is readable.
    """
    broken = []
    for name in ("next.pt", "last.pt", "previous.pt"):
        path = folder / name
        if not path.exists():
            continue
        try:
            state = _read(path)
        except (
            OSError,
            RuntimeError,
            EOFError,
            ValueError,
            KeyError,
            pickle.UnpicklingError,
            zipfile.BadZipFile,
        ) as error:
            broken.append(name)
            warnings.warn(f"{path} is not readable ({error}): taking the checkpoint before it.", stacklevel=2)
        else:
            return state
    if broken:
        raise UserError(f"No checkpoint in {folder} can be read ({', '.join(broken)}). Start the run again.")
    return None


def _read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:  # torch.load does not compare the checksums in the file
        bad = archive.testzip()
    if bad is not None:
        raise zipfile.BadZipFile(f"wrong checksum in {bad}")
    return torch.load(path, map_location="cpu", weights_only=True)
