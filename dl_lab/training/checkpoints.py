"""Checkpoints that resume exactly: tensors and plain types only, written whole, checked when read.

`checkpoints/last.pt` and the one before it (`previous.pt`); `best.safetensors` and `last.safetensors` hold weights.
"""

from __future__ import annotations

import io
import os
import pickle
import random
import shutil
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from google_crc32c import value as crc32c
from torch import Tensor

from dl_lab.run import to_json, write_atomic
from dl_lab.types import UserError


def save(folder: Path, state: Mapping[str, Any]) -> None:
    """Write last.pt; the old one is kept as previous.pt. A kill in between leaves at least one of them whole."""
    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    waiting = folder / "next.pt"
    write_atomic(waiting, buffer.getbuffer(), durable=True)  # pyright: ignore[reportArgumentType]
    if (folder / "last.pt").exists():
        os.replace(folder / "last.pt", folder / "previous.pt")
    os.replace(waiting, folder / "last.pt")


def load(folder: Path) -> dict[str, Any] | None:
    """The newest readable checkpoint; None where none was written yet.

    A truncated or corrupt one gives a warning and the one before it. Raises UserError where all are unreadable.
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
            warnings.warn(f"{path} is not readable ({error}): going back to the one before.", stacklevel=2)
        else:
            return state
    if broken:
        raise UserError(f"No checkpoint in {folder} can be read ({', '.join(broken)}): start the run again.")
    return None


def _read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:  # torch.load itself does not compare the checksums in the file
        bad = archive.testzip()
    if bad is not None:
        raise zipfile.BadZipFile(f"wrong checksum in {bad}")
    return torch.load(path, map_location="cpu", weights_only=True)


def save_weights(path: Path, weights: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Weights as safetensors; `about` goes into its metadata (as one entry: the order of several is random)."""
    from safetensors.torch import save as to_bytes

    path.parent.mkdir(exist_ok=True)
    contiguous = {name: tensor.cpu().contiguous().clone() for name, tensor in weights.items()}
    write_atomic(path, to_bytes(contiguous, {"about": to_json(about)}))


def save_same(path: Path, other: Path) -> None:
    """The file `other` under a second name; neither is ever written to, only replaced."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            os.link(other, temporary)
        except OSError:  # a file system without links
            shutil.copyfile(other, temporary)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"Cannot write {path}: {error.strerror}.") from error


def load_weights(path: Path) -> dict[str, Tensor]:
    """Raises UserError where the file is missing or not readable."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"The weights {path} cannot be read: {error}.") from error


def fingerprints(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """The CRC-32C of each tensor's bits, 8 hex digits: one other float32 in it always makes another."""
    return {name: _digest(tensor) for name, tensor in weights.items()}


def _digest(tensor: Tensor) -> str:
    plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return f"{crc32c(plain.numpy()):08x}"


def random_state() -> dict[str, Any]:
    """The state of every global random generator, as tensors and plain types."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # type: ignore[misc]
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": [version, list(internal), gauss],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed python, numpy and torch; deterministic=True also refuses operations without a deterministic kernel."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # manual_seed would also note it, with the whole stack, for devices that are not there: 0.5 ms
        torch.default_generator.manual_seed(seed)
    if deterministic != torch.are_deterministic_algorithms_enabled():  # setting it imports torch's compiler
        torch.use_deterministic_algorithms(deterministic)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
