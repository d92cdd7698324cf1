"""A job of a sweep in an interpreter of its own: python -m dl_lab.commands._start FOLDER SOLO.

For job_process=fresh, and on the nodes of a cluster.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dl_lab import config as configs
from dl_lab.commands import _jobs
from dl_lab.run import Run, describe_devices, read_json


def main() -> int:
    """Run what a prepared run folder describes; exit statuses as in a forked child."""
    folder, solo = Path(sys.argv[1]), sys.argv[2] == "1"
    config = configs.read_config(folder)
    board = configs.build(config, "logger")
    resuming = any(folder.glob("checkpoints/*.pt"))
    run = Run.reopen(folder, config, board) if resuming else Run(folder, config, board)
    if not resuming:
        run.cut_back({})  # a node may have died during the first try, before its first checkpoint
    run.add_facts(devices=describe_devices())
    choices = (read_json(folder / "env.json") or {}).get("choices", {})
    return _jobs.guarded(lambda: _jobs.perform(run, 0, {"choices": choices, "solo": solo}, lambda event: None))


if __name__ == "__main__":
    sys.exit(main())
