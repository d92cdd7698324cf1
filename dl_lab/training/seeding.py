"""Seed all random generators."""

from __future__ import annotations

import os
import random

import numpy as np
import torch


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed Python, NumPy and torch.

    Args:
        seed: The seed.
        deterministic: Whether torch refuses operations without a deterministic kernel.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # torch.manual_seed would also keep the seed, with the whole stack, for absent devices: 0.5 ms
        torch.default_generator.manual_seed(seed)
    if deterministic != torch.are_deterministic_algorithms_enabled():  # to set the mode imports torch's compiler
        torch.use_deterministic_algorithms(deterministic)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
