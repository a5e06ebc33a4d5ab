"""How a run uses a Ray cluster. Needs no Ray."""

from __future__ import annotations

from dataclasses import dataclass, fields

from .errors import UsageError

_MAX_WORKERS = 10_000


@dataclass(frozen=True, slots=True)
class RayOptions:
    """What `pscr-engine score --runner ray` is asked to do.

    Args:
        address: "auto" for the cluster that RAY_ADDRESS names or that this host is part of, HOST:PORT for
            another, "local" to start one on this host for this run.
        workers: how many there are to be; None for as many as fit into the cluster, whatever its size is now.
        cpus_per_worker: cores of each worker; None for all those of the smallest node, shared among its GPUs.
        gpus_per_worker: 0 or 1; None for 1 if the cluster has GPUs.
    """

    address: str = "auto"
    workers: int | None = None
    cpus_per_worker: int | None = None
    gpus_per_worker: int | None = None

    def __post_init__(self) -> None:
        if not self.address or "://" in self.address:
            raise UsageError(
                f"--ray-address {self.address}: write auto, local or HOST:PORT, and give the command on a node of "
                "the cluster"
            )
        if self.workers is not None and not 1 <= self.workers <= _MAX_WORKERS:
            raise UsageError(f"--workers {self.workers}: must be from 1 to {_MAX_WORKERS}")
        if self.cpus_per_worker is not None and self.cpus_per_worker < 1:
            raise UsageError(f"--cpus-per-worker {self.cpus_per_worker}: must be at least 1")
        if self.gpus_per_worker not in (None, 0, 1):
            raise UsageError(f"--gpus-per-worker {self.gpus_per_worker}: a worker has one GPU, or none")

    def given(self) -> list[str]:
        """The command line's options that are not as they are by themselves."""
        flags = {"address": "--ray-address"}
        return [
            flags.get(field.name, "--" + field.name.replace("_", "-"))
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]
