"""Weights as safetensors files, and their fingerprints."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from google_crc32c import value as crc32c
from torch import Tensor

from dl_lab.runs.files import to_json, write_atomic
from dl_lab.types import UserError


def save_weights(path: Path, weights: Mapping[str, Tensor], about: Mapping[str, object]) -> None:
    """Write weights as safetensors.

    Args:
        path: The file.
        weights: The tensors by name.
        about: Facts for the file's metadata. They are one entry there, because the order of several is random.
    """
    from safetensors.torch import save as to_bytes

    path.parent.mkdir(exist_ok=True)
    contiguous = {name: tensor.cpu().contiguous().clone() for name, tensor in weights.items()}
    write_atomic(path, to_bytes(contiguous, {"about": to_json(about)}))


def save_same(path: Path, other: Path) -> None:
    """Give the file `other` a second name. dl-lab never writes into either of them, it only replaces them."""
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
    """Read weights by name.

    Raises:
        UserError: The file is missing or not readable.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"The weights {path} cannot be read: {error}.") from error


def fingerprints(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the CRC-32C of each tensor's bits (8 hex digits). A change of a single float32 always changes it."""
    return {name: _digest(tensor) for name, tensor in weights.items()}


def _digest(tensor: Tensor) -> str:
    plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return f"{crc32c(plain.numpy()):08x}"
