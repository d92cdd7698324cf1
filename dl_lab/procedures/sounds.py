"""Classify new sounds: `dl-lab predict RUN file.wav`, or a folder of sounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dl_lab.datasets.sets.audio_folder import as_item
from dl_lab.datasets.speech.audio import LogMel, read_any
from dl_lab.datasets.speech.folders import find_sounds
from dl_lab.procedures.rows import Row
from dl_lab.types import Answer, UserError


@dataclass
class ClassifySound:
    """Classify a sound file, or every sound file of a folder, prepared as in training.

    Args:
        model: The run's model.
        reads_folder: Tells the command that the user may give a folder.
    """

    model: nn.Module
    reads_folder: bool = True

    @torch.no_grad()
    def __call__(self, path: Path, weights: Mapping[str, Tensor], preprocessing: Mapping[str, Any]) -> Answer:
        """Classify one file, or all sound files of a folder.

        Returns:
            A row for each file: its name, its class, and the share of each class.

        Raises:
            UserError: A file is damaged, or the folder has no sounds.
        """
        files = find_sounds(path)[0] if path.is_dir() else [path]
        if not files:
            raise UserError(f"{path} has no sounds.")
        settings = LogMel(**preprocessing["features"])
        rate = preprocessing["sample_rate"]
        n_samples = preprocessing["n_samples"]
        names = preprocessing["class_names"]
        self.model.load_state_dict(dict(weights))
        self.model.eval()
        rows: list[Row] = []
        notes: list[str] = []
        for file in files:
            samples = read_any(file, rate)
            if len(samples) > n_samples:
                seconds = len(samples) / rate
                notes.append(
                    f"{file}: the first {n_samples / rate:.2f} of its {seconds:.2f} s are judged, as in training"
                )
            image = as_item(samples, n_samples, settings)[None, None]
            shares = self.model(image)[0].softmax(dim=0).tolist()
            label = names[shares.index(max(shares))]
            columns = {f"p({name})": round(share, 4) for name, share in zip(names, shares, strict=True)}
            rows.append({"file": str(file), "label": label, **columns})
        return Answer(rows, notes)
