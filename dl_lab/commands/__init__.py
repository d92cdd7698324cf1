"""The verbs of dl-lab: a module each."""

from __future__ import annotations

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
