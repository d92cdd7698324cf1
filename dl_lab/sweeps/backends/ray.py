"""Run jobs through Ray, as tasks of a cluster that runs already. When the sweep's process dies, Ray ends them."""

# Ray is an optional package: the type check must pass without it too.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dl_lab.sweeps.backends.node import Task, supervise
from dl_lab.types import UserError

POLL_SECONDS = 0.5
CONNECT_SECONDS = 10.0


class Ray:
    """A running Ray cluster (`remote.Engine`). Each job is a task that Ray itself never retries.

    Args:
        address: HOST:PORT of the cluster's head. "auto" takes RAY_ADDRESS, else the cluster of this machine.
        cpus: CPU cores that each job reserves.
        gpus: GPUs that each job reserves; 0.25 shares one among four jobs.
        resources: Further resources that each job reserves, by name.

    Raises:
        ValueError: A reservation is too small.
    """

    def __init__(
        self, address: str = "auto", cpus: int = 1, gpus: float = 0, resources: Mapping[str, float] | None = None
    ) -> None:
        if cpus < 1 or gpus < 0:
            raise ValueError("cpus must be at least 1, gpus at least 0")
        self.address = address
        self.cpus = cpus
        self.reserved = {"num_cpus": cpus, "num_gpus": gpus, "resources": dict(resources or {})}
        self._tasks: dict[Any, int] = {}  # Ray's reference to a task -> the number of the job
        self.trouble = ""

    def open(self, folder: Path, name: str) -> str:
        """Connect to the cluster, and refuse jobs that no node can take."""
        try:
            import ray
        except ImportError:
            raise UserError("launcher=ray needs Ray: pip install 'dl-lab[ray]'.") from None
        self._refuse_dead_address()
        try:
            ray.init(
                address=self.address,
                namespace="dl-lab",
                log_to_driver=False,
                logging_level=logging.ERROR,
                ignore_reinit_error=True,
            )
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise self._no_cluster(str(error).strip().partition("\n")[0]) from None
        self._refuse_impossible_jobs()
        return ""

    def _refuse_dead_address(self) -> None:
        """Refuse an address where nothing listens: Ray itself would try for many minutes."""
        address = os.environ.get("RAY_ADDRESS", "") if self.address == "auto" else self.address
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if not host or not port.isdigit():
            return
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            raise self._no_cluster(f"{address}: {error.strerror or error}") from None

    def _no_cluster(self, reason: str) -> UserError:
        where = "here" if self.address == "auto" else f"at {self.address}"
        return UserError(
            f"There is no Ray cluster {where} ({reason}): start one with `ray start --head`, or name it with "
            "launcher.address=HOST:PORT."
        )

    def _refuse_impossible_jobs(self) -> None:
        """Refuse jobs that no node can take: Ray would let them wait for ever."""
        import ray

        wanted = {"CPU": self.reserved["num_cpus"], "GPU": self.reserved["num_gpus"], **self.reserved["resources"]}
        for node in ray.nodes():
            if node["Alive"] and all(node["Resources"].get(name, 0) >= amount for name, amount in wanted.items()):
                return
        asked = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items() if amount)
        self.close()
        raise UserError(f"No node of the Ray cluster has what a job reserves ({asked}).")

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue jobs."""
        import ray

        remote = ray.remote(max_retries=0, **self.reserved)(supervise)
        for task in tasks:
            self._tasks[remote.options(name=f"job {task.job}").remote(task)] = task.job

    def find_ended(self) -> dict[int, str]:
        """Find the jobs that ended, and how."""
        import ray
        from ray.exceptions import RayError

        if not self._tasks:
            time.sleep(POLL_SECONDS)
            return {}
        try:
            done, _ = ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=POLL_SECONDS)
        except (RayError, ConnectionError) as error:
            raise UserError(
                f"The Ray cluster is gone: {error}. Type the same command again to run what is left."
            ) from None
        return {self._tasks.pop(reference): _describe_end(reference) for reference in done}

    def stop(self, kill: bool) -> None:
        """Cancel all jobs. Ray raises KeyboardInterrupt in those that run, or kills them."""
        import ray

        for reference in self._tasks:
            ray.cancel(reference, force=kill)

    def close(self) -> None:
        """Leave the cluster. Ray ends what this process started there."""
        import ray

        if ray.is_initialized():
            ray.shutdown()


def _describe_end(reference: Any) -> str:
    import ray
    from ray.exceptions import RayError

    try:
        return f"exit status {ray.get(reference)}"
    except RayError as error:
        return f"Ray: {type(error).__name__}"
