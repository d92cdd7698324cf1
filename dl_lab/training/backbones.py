"""Pretrained weights: torchvision's, which are downloaded and checked, or a file of the user's own.

Only tensors are read from a file; nothing in it is executed (weights_only, safetensors).
"""

from __future__ import annotations

import hashlib
import pickle
import re
import sys
import urllib.error
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dl_lab.datasets.download import verify
from dl_lab.runs.weights import load_weights
from dl_lab.types import UserError

ADVICE = "procedure.weights=random trains without them"


def read_backbone(architecture: str, weights: str, folder: Path, checksum: str = "") -> tuple[dict[str, Tensor], str]:
    """Read the weights of a pretrained net.

    Args:
        architecture: The name of the net in torchvision.
        weights: "imagenet" (torchvision's IMAGENET1K_V1) or another of torchvision's names for this architecture,
            looked for in `folder` and fetched into it. Or a file (.pth, .pt, .safetensors), absolute or relative to
            `folder` or to the current folder.
        folder: The folder of weights.
        checksum: "sha256:..." or "md5:..." that a file of the user's own must have. The names of torchvision's files
            hold their checksums.

    Returns:
        The state dict, and a description of the file: its name and sha256.

    Raises:
        UserError: The file is not there and cannot be fetched, has another checksum, or holds no weights.
    """
    folder = folder.expanduser()
    if weights.endswith((".pth", ".pt", ".safetensors")):
        given = Path(weights).expanduser()
        candidates = list(dict.fromkeys([folder / given, given.absolute()]))
        found = [candidate for candidate in candidates if candidate.is_file()]
        if not found:
            raise UserError(f"The weights {' and '.join(map(str, candidates))} do not exist. {ADVICE}.")
        path = found[0]
    else:
        path = _find_torchvision_file(architecture, weights, folder)
    if checksum and not verify(path, checksum):
        raise UserError(f"{path} is not the expected file: its checksum is not {checksum}.")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return _read_tensors(path), f"{path.name} (sha256 {digest[:16]})"


def _find_torchvision_file(architecture: str, name: str, folder: Path) -> Path:
    """Return the path of the official file; download the file if it is missing.

    The name of the file ends in the first digits of its sha256.
    """
    from torchvision.models import get_model_weights

    known = {entry.name: entry for entry in get_model_weights(architecture)}
    entry = known.get("IMAGENET1K_V1" if name == "imagenet" else name)
    if entry is None:
        raise UserError(
            f"procedure.weights={name}: {architecture} has the weights imagenet, {', '.join(known)}, random, or a file "
            "(.pth, .pt, .safetensors)."
        )
    path = folder / entry.url.rpartition("/")[2]
    prefix = re.search(r"-([0-9a-f]{8,})\.", path.name)
    assert prefix is not None, f"torchvision names {path.name} without its checksum"
    if not path.exists():
        _fetch(entry.url, path, prefix[1])
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(prefix[1]):
        raise UserError(f"{path} is damaged: its sha256 does not start with {prefix[1]}. Delete it and run again.")
    return path


def _fetch(url: str, path: Path, prefix: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=sys.stderr.isatty())
    except (OSError, RuntimeError, urllib.error.URLError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # the error holds the server's answer; Python 3.14 warns about an answer that stays open
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{url} could not be downloaded: {reason}. Run again later, or put the file at {path}; {ADVICE}."
        ) from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_weights(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"The weights {path} cannot be read: {reason}.") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict (names and tensors), so it has no weights to take.")
    return dict(state)
