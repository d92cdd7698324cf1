"""Decide where the jobs of a sweep run: on lanes of this machine, or on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dl_lab import preload
from dl_lab.sweeps.backends.layout import Layout, plan_layout, visible_gpus
from dl_lab.sweeps.backends.protocol import Prepare, Send, Task
from dl_lab.sweeps.backends.schedule import Schedule
from dl_lab.types import count

if TYPE_CHECKING:
    from rich.console import Console

    from dl_lab.sweeps import plan
    from dl_lab.sweeps.backends import remote


class Machinery:
    """Where the jobs run. Before a cluster runs them, this machine checks them."""

    def __init__(self) -> None:
        self.engine: remote.Engine | None = None
        self.tuned_lanes: int | None = None
        self.schedule = Schedule(Layout(("",), 1, 1), _prepare, _work)

    def start_early(self) -> None:
        """Start the server before the settings are known: it imports torch while this process composes the jobs.

        With GPUs the settings say how many servers there are.
        """
        if not visible_gpus():
            self.schedule.open()

    def settle(self, launcher: Mapping[str, object], config: Mapping[str, Any], start: bool) -> None:
        """Decide where the jobs run.

        Args:
            launcher: The settings of `launcher=`; {} for this machine.
            config: The config of a job, with `lanes`, `threads` and `on_failure`.
            start: Start the servers.

        Raises:
            UserError: A setting is wrong.
        """
        from dl_lab import configs
        from dl_lab.configs.parts import trainer_of

        if not launcher:
            config = self._use_tuned_lanes(config)
        self.config = config
        if launcher:
            self.engine = configs.build_checked(launcher, "launcher")
        layout = plan_layout(config["lanes"], trainer_of(config).get("device", "auto"), config["threads"])
        if self.engine is None:
            self.schedule.layout = layout
        if start:
            self.schedule.open()

    def _use_tuned_lanes(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take the lanes that `dl-lab tune` found, where the user chose neither lanes nor threads."""
        from dl_lab.configs.identity import cost_key
        from dl_lab.runs import local

        if config["lanes"] != "auto" or config["threads"]:
            return config
        lanes = local.find(cost_key(config)).get("lanes")
        self.tuned_lanes = lanes if isinstance(lanes, int) else None
        return {**config, "lanes": self.tuned_lanes} if self.tuned_lanes else config

    def connect(self, console: Console, sweep: plan.Sweep) -> None:
        """Connect to the cluster, and say what an earlier start left there.

        Args:
            console: Where it is shown.
            sweep: The sweep.

        Raises:
            UserError: There is no cluster.
        """
        if self.engine is not None:
            news = self.engine.open(sweep.folder, sweep.key)
            if news:
                console.print(news)

    def width(self, n_jobs: int) -> int:
        """Return how many jobs run at a time: `lanes`, on a cluster all that are known.

        Args:
            n_jobs: How many jobs are known.
        """
        if self.engine is None:
            return self.schedule.layout.slots * len(self.schedule.layout.devices)
        return n_jobs if self.config["lanes"] == "auto" else int(self.config["lanes"])

    def where(self, n_jobs: int) -> str:
        """Say where the jobs run, and how many at a time: "4 lanes", "Slurm, all jobs at a time".

        Args:
            n_jobs: How many jobs are known.
        """
        width = self.width(n_jobs)
        if self.engine is None:
            lanes = f"{width} lane{'s' * (width != 1)}"
            return f"{lanes}, as dl-lab tune found" if self.tuned_lanes else lanes
        jobs = "all jobs" if width >= n_jobs else count(width, "job")
        return f"{type(self.engine).__name__}, {jobs} at a time"

    def runner(self, n_jobs: int) -> Schedule | remote.Cluster:
        """Return what runs the jobs, once they are checked. On a cluster, the servers of this machine end.

        Args:
            n_jobs: How many jobs are known.
        """
        runner: Schedule | remote.Cluster = self.schedule
        if self.engine is not None:
            from dl_lab.sweeps.backends import remote
            from dl_lab.sweeps.folder import make_folder

            self.schedule.close()
            runner = remote.Cluster(self.engine, self.width(n_jobs), make_folder)
        runner.stop_on_failure = self.config["on_failure"] == "stop"
        return runner

    def close(self) -> None:
        """End the servers, and leave the cluster."""
        self.schedule.close()
        if self.engine is not None:
            self.engine.close()


# The next two run in the servers and their children. They import torch: this process must not.


def _prepare(order: Prepare) -> None:
    preload.torch()
    from dl_lab.sweeps import worker

    worker.prepare(order)


def _work(task: Task, send: Send) -> int:
    from dl_lab.sweeps import worker

    return worker.work(task, send)
