"""Jobs through Ray: tasks of a cluster that is running already; when the sweep's process dies, Ray ends them."""

# Ray is an extra: the type check passes without it too.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dl_lab.sweeps.remote import Task, supervise
from dl_lab.types import UserError

POLL_SECONDS = 0.5
CONNECT_SECONDS = 10.0


class Ray:
    """A running Ray cluster: each job of the sweep is a task that is never retried behind the sweep's back.

    address: "auto" for the cluster of RAY_ADDRESS, else the one of this machine; or HOST:PORT of its head. cpus, gpus,
    resources: what each job reserves (a part of a GPU is possible: 0.25).
    """

    def __init__(
        self, address: str = "auto", cpus: int = 1, gpus: float = 0, resources: Mapping[str, float] | None = None
    ) -> None:
        if cpus < 1 or gpus < 0:
            raise ValueError("cpus must be at least 1, gpus at least 0")
        self.address, self.cpus = address, cpus
        self.reserved = {"num_cpus": cpus, "num_gpus": gpus, "resources": dict(resources or {})}
        self._tasks: dict[Any, int] = {}  # reference -> job
        self.trouble = ""

    def open(self, folder: Path, name: str) -> str:
        try:
            import ray
        except ImportError:
            raise UserError("launcher=ray needs Ray: pip install 'dl-lab[ray]'.") from None
        self._refuse_the_unreachable()
        try:
            ray.init(
                address=self.address,
                namespace="dl-lab",
                log_to_driver=False,
                logging_level=logging.ERROR,
                ignore_reinit_error=True,
            )
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise UserError(self._no_cluster(str(error).strip().partition("\n")[0])) from None
        self._refuse_the_impossible()
        return ""

    def _refuse_the_unreachable(self) -> None:
        """Ray itself would try for many minutes to reach an address where nothing listens."""
        address = os.environ.get("RAY_ADDRESS", "") if self.address == "auto" else self.address
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if not host or not port.isdigit():
            return
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            raise UserError(self._no_cluster(f"{address}: {error.strerror or error}")) from None

    def _no_cluster(self, reason: str) -> str:
        where = "here" if self.address == "auto" else f"at {self.address}"
        return (
            f"There is no Ray cluster {where} ({reason}): start one with `ray start --head`, or name it with "
            "launcher.address=HOST:PORT."
        )

    def _refuse_the_impossible(self) -> None:
        """A task that no node can take would wait for ever."""
        import ray

        wanted = {"CPU": self.reserved["num_cpus"], "GPU": self.reserved["num_gpus"], **self.reserved["resources"]}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
            asked = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items() if amount)
            self.close()
            raise UserError(f"No node of the Ray cluster has what a job reserves ({asked}).")

    def submit(self, tasks: Sequence[Task]) -> None:
        import ray

        remote = ray.remote(max_retries=0, **self.reserved)(supervise)
        for task in tasks:
            self._tasks[remote.options(name=f"job {task.job}").remote(task)] = task.job

    def ended(self) -> dict[int, str]:
        import ray
        from ray.exceptions import RayError

        if not self._tasks:
            time.sleep(POLL_SECONDS)
            return {}
        try:
            done, _ = ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=POLL_SECONDS)
        except (RayError, ConnectionError) as error:
            raise UserError(f"The Ray cluster is gone: {error}. The same command goes on with what is left.") from None
        return {self._tasks.pop(one): _what_happened(one) for one in done}

    def stop(self, kill: bool) -> None:
        import ray

        for reference in self._tasks:
            ray.cancel(reference, force=kill)

    def close(self) -> None:
        import ray

        if ray.is_initialized():
            ray.shutdown()  # ends what this process has started on the cluster


def _what_happened(reference: Any) -> str:
    import ray
    from ray.exceptions import RayError

    try:
        return f"exit status {ray.get(reference)}"
    except RayError as error:
        return f"Ray: {type(error).__name__}"
