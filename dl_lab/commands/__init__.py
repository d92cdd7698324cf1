"""The verbs of dl-lab: a module each."""

from __future__ import annotations

import os

MULTIRUN = ("-m", "--multirun", "hydra.mode=MULTIRUN")
HYDRA_FLAGS = (  # Hydra's own views of a config
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--hydra-help",
    "--shell-completion",
    "-sc",
    "--package",
    "-p",
    "--resolve",
)


def is_several() -> bool:
    """Whether torchrun started this process beside others (asked without importing torch)."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ
