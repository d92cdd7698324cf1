"""Run a job of a sweep in an interpreter of its own: python -m dl_lab.sweeps.fresh FOLDER SOLO.

job_process=fresh uses it, and the nodes of a cluster. SOLO is 1 where no other job shares the device, else 0.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dl_lab import configs, preload
from dl_lab.runs.claims import claimed
from dl_lab.runs.environment import describe_devices
from dl_lab.runs.files import read_json


def main() -> int:
    """Run the job of a prepared run folder; return its exit status, which means the same as that of a forked child."""
    preload.torch()
    from dl_lab.sweeps import worker

    folder = Path(sys.argv[1])

    def run_job() -> int:
        with claimed(folder):
            run = worker.open_run(folder, configs.read_config(folder))
            if not run.resuming:
                run.cut_back({})  # a node may have died during the first try, before its first checkpoint
            run.add_facts(devices=describe_devices())
            choices = (read_json(folder / "env.json") or {}).get("choices", {})
            return worker.perform(run, choices, beside_others=sys.argv[2] == "0")

    return worker.guard(run_job)


if __name__ == "__main__":
    sys.exit(main())
