"""Frozen settings of a run, resolved once and handed on whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from .errors import UsageError, option
from .manifests import Manifest, ManifestOptions
from .models import GivenBundle, Panel, one_or_panel
from .output.shard import WHOLE, Shard
from .stages.base import DEFAULT_VERIFIED_SHARE
from .stages.decision import DEFAULT_RISK
from .stages.decode import DEFAULT_MAX_PIXELS
from .stores.uri import Place, StorePath, place, scheme_of

_MAX_BATCH_SIZE = 4096
_MAX_WORKERS = 10_000
_MAX_PORT = 65_535
_LOOPBACK = "127.0.0.1"
# Without a wish of the user, a run has about this many chunks, so that little work is lost with one,
# within limits, so that a small run has no tiny parts and a huge one no long-lasting chunks.
_CHUNKS, _MIN_CHUNK_ROWS, _MAX_CHUNK_ROWS = 200, 64, 8192


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
                f"{option('--ray-address')} {self.address}: write auto, local or HOST:PORT, and give the command on a "
                f"node of "
                "the cluster"
            )
        if self.workers is not None and not 1 <= self.workers <= _MAX_WORKERS:
            raise UsageError(f"{option('--workers')} {self.workers}: must be from 1 to {_MAX_WORKERS}")
        if self.cpus_per_worker is not None and self.cpus_per_worker < 1:
            raise UsageError(f"{option('--cpus-per-worker')} {self.cpus_per_worker}: must be at least 1")
        if self.gpus_per_worker not in (None, 0, 1):
            raise UsageError(f"{option('--gpus-per-worker')} {self.gpus_per_worker}: a worker has one GPU, or none")

    def given(self) -> list[str]:
        """List the settings that differ from their defaults, as the caller knows them."""
        flags = {"address": "--ray-address"}
        return [
            option(flags.get(field.name, "--" + field.name.replace("_", "-")))
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]


@dataclass(frozen=True, slots=True)
class ScoreConfig:
    """What `pscr-engine score` is asked to do.

    Args:
        manifest: the list of images: a file, a directory or a glob, on this host or in an object store.
        bundle: folder of the exported model, the URI of its copy in an object store, or the name of a shipped model;
            None for `model.pscr` in the current folder or else the shipped model, decided when the run begins. Several
            score every image in one pass, and have columns with their names: a mapping's keys, or those of a list's
            files; "NAME=PATH" in a list gives another.
        out: folder for the parts, `_run.json` and `_SUCCESS`, or its URI in an object store.
        columns: which columns of the manifest to use, and where relative paths start.
        devices: "auto", "all", or a list of devices, "cuda:0,cuda:1" for example: one worker each.
        backend: "onnxruntime", "tensorrt", "tensorrt-rtx" or "auto".
        precision: one of the bundle's precisions, or "auto".
        batch_size: images per batch; None for the backend's own choice.
        chunk_rows: manifest rows per part, the unit of commit and resume; None to follow the manifest's size.
        features: whether to write each image's features.
        small_images: "upscale" images with a side below the patch size, or make them an "error".
        max_pixels: images with more pixels are `too_large`.
        verify_decoding: share of the images from a GPU's decoder that are compared with Pillow's; 0 for none.
        overwrite: throw away what an earlier run left in `out`.
        retry_failed: score again, in place, the rows of an earlier run whose status is not ok.
        known: outputs of earlier runs; a row whose image was scored there takes over its result. The first that has
            an image counts.
        known_by: what tells that an image is the same: "path" (with the file's size and time of modification, or the
            object's ETag), the row's "id", or "content", whose digests the parts then hold, too.
        known_failed: take over failed rows, too, if no earlier run has scored the image.
        once_per_content: score images with the same bytes once for each worker, as far as its memory reaches; such rows
            get equal results.
        patches: score each image by this many of its patches, those that tell most; None for all.
        keep_above: decide for each image whether its score is at least this, by as few patches as that takes; None to
            decide nothing.
        keep_top: the same with the score that this share of the images has, as a sample of them tells.
        risk: share of these decisions that may differ from those by all patches.
        max_failure_rate: share of rows, 0 to 1, that may fail before the run exits with 3; None for all but the last.
        shard: which of the chunks are scored here, others being left to other processes; "i/n" as text.
        runner: "local" for this host, or "ray" for a Ray cluster.
        ray: which cluster and how; for the Ray runner only.
        metrics_file: where to write metrics as OpenMetrics text, every few seconds and at the end; None for nowhere.
        metrics_port: where Prometheus may scrape them while the run goes on, 0 for any free port; None for nowhere.
        metrics_host: name or address of this host that the port is on.
    """

    manifest: str
    bundle: GivenBundle | Panel | Mapping[str, GivenBundle] | Iterable[GivenBundle] | None = None
    out: Place = Path("scores")
    columns: ManifestOptions = field(default_factory=ManifestOptions)
    devices: str = "auto"
    backend: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    chunk_rows: int | None = None
    features: bool = False
    small_images: Literal["upscale", "error"] = "upscale"
    max_pixels: int = DEFAULT_MAX_PIXELS
    verify_decoding: float = DEFAULT_VERIFIED_SHARE
    overwrite: bool = False
    retry_failed: bool = False
    known: Sequence[Place] = ()
    known_by: Literal["path", "id", "content"] = "path"
    known_failed: bool = False
    once_per_content: bool = False
    patches: int | None = None
    keep_above: float | None = None
    keep_top: float | None = None
    risk: float | None = None
    max_failure_rate: float | None = None
    shard: Shard = WHOLE
    runner: Literal["local", "ray"] = "local"
    ray: RayOptions = field(default_factory=RayOptions)
    metrics_file: Path | None = None
    metrics_port: int | None = None
    metrics_host: str = _LOOPBACK

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", place(self.out, option("--out")))  # text is welcome, too
        object.__setattr__(self, "bundle", one_or_panel(self.bundle))
        if isinstance(self.bundle, str):
            place(self.bundle, option("--bundle"))  # refuses what can't be one
        self._check_known()
        self._check_panel()
        self._check_early()
        self._check_metrics()
        if isinstance(self.shard, str):
            object.__setattr__(self, "shard", Shard.parse(self.shard))
        if self.batch_size is not None and not 1 <= self.batch_size <= _MAX_BATCH_SIZE:
            raise UsageError(f"{option('--batch-size')} {self.batch_size}: must be from 1 to {_MAX_BATCH_SIZE}")
        if self.chunk_rows is not None and self.chunk_rows < 1:
            raise UsageError(f"{option('--chunk-rows')} {self.chunk_rows}: must be at least 1")
        if self.max_pixels < 1:
            raise UsageError(f"{option('--max-pixels')} {self.max_pixels}: must be at least 1")
        if not 0 <= self.verify_decoding <= 1:
            raise UsageError(f"{option('--verify-decoding')} {self.verify_decoding}: must be from 0 to 1")
        if self.max_failure_rate is not None and not 0 <= self.max_failure_rate <= 1:
            raise UsageError(f"{option('--max-failure-rate')} {self.max_failure_rate}: must be from 0 to 1")
        if self.overwrite and self.retry_failed:
            raise UsageError(
                f"{option('--overwrite')} starts afresh and {option('--retry-failed')} goes on with what is there: "
                f"choose one"
            )
        if self.columns.allow_private_addresses and not self.columns.allow_http:
            raise UsageError(
                f"{option('--allow-private-addresses')} is about web servers: give {option('--allow-http', True)}, too"
            )
        for flag, given in ((option("--overwrite"), self.overwrite), (option("--retry-failed"), self.retry_failed)):
            if given and self.shard != WHOLE:
                raise UsageError(
                    f"{flag} is for a whole run, since other shards may be at work: give it once without "
                    f"{option('--shard')}"
                )
        if self.runner == "ray":
            self._check_ray()
        elif self.ray != RayOptions():
            raise UsageError(f"{self.ray.given()[0]} is for a Ray cluster: add {option('--runner', 'ray')}")

    def _check_panel(self) -> None:
        if not isinstance(self.bundle, Panel):
            return
        for flag, value, given in (
            ("--runner", "ray", self.runner == "ray"),
            ("--known", None, bool(self.known)),
            ("--patches", None, self.patches is not None),
            ("--keep-above", None, self.keep_above is not None),
            ("--keep-top", None, self.keep_top is not None),
        ):
            if given:
                raise UsageError(
                    f"{option(flag, value)} is for runs with one bundle that has no name: leave it out, or give a "
                    f"command for each bundle, with another {option('--out')}"
                )

    @property
    def early(self) -> bool:
        """Tell whether images are scored by some of their patches."""
        return self.patches is not None or self.decides

    @property
    def decides(self) -> bool:
        """Tell whether it is decided which images to keep."""
        return self.keep_above is not None or self.keep_top is not None

    def _check_early(self) -> None:
        if self.keep_above is not None and self.keep_top is not None:
            raise UsageError(
                f"{option('--keep-above')} names the score to keep images from, and {option('--keep-top')} has it "
                "found: choose one"
            )
        keep = option("--keep-above" if self.keep_top is None else "--keep-top")
        if self.patches is not None and self.decides:
            raise UsageError(
                f"{option('--patches')} fixes how many patches are scored, and {keep} decides it for each image: "
                "choose one"
            )
        if self.risk is not None and not self.decides:
            raise UsageError(f"{option('--risk')} is about decisions: give {option('--keep-above')}, too")
        if self.risk is not None and not 0 < self.risk < 1:
            raise UsageError(f"{option('--risk')} {self.risk}: must be between 0 and 1, 0.005 for half a percent")
        if self.keep_above is not None and not math.isfinite(self.keep_above):
            raise UsageError(f"{option('--keep-above')} {self.keep_above}: must be a finite score")
        if self.keep_top is not None and not 0 < self.keep_top < 1:
            raise UsageError(f"{option('--keep-top')} {self.keep_top}: must be between 0 and 1, 0.1 for the best tenth")
        if self.patches is not None and self.patches < 1:
            raise UsageError(f"{option('--patches')} {self.patches}: must be at least 1")
        if not self.early:
            return
        what = option("--patches") if self.patches is not None else keep
        if self.backend not in ("auto", "onnxruntime"):
            raise UsageError(f"{what} is computed by onnxruntime, not {self.backend}: leave {option('--backend')} out")
        if self.decides and self.features:
            raise UsageError(
                f"{option('--features', True)} are the mean over all patches, which {what} does without: leave one out"
            )
        if self.known:
            raise UsageError(f"{option('--known')} takes over scores by all patches: leave {what} out")

    def _check_known(self) -> None:
        given = (self.known,) if isinstance(self.known, str | Path | StorePath) else self.known
        known = tuple(place(each, option("--known")) for each in given)
        object.__setattr__(self, "known", known)
        for each in known:
            if each == self.out or (
                isinstance(each, Path) and isinstance(self.out, Path) and each.resolve() == self.out.resolve()
            ):
                raise UsageError(
                    f"{option('--known')} {each}: is {option('--out')} itself; choose another {option('--out')} for "
                    "the new run"
                )
        if self.known_by not in ("path", "id", "content"):
            raise UsageError(f"{option('--known-by')} {self.known_by}: must be path, id or content")
        if not known and (self.known_failed or self.known_by == "id"):
            which = "--known-failed" if self.known_failed else "--known-by"
            raise UsageError(f"{option(which)} is about earlier runs: name one with {option('--known')}")

    def _check_metrics(self) -> None:
        file, port = self.metrics_file, self.metrics_port
        if file is not None and not isinstance(file, Path):
            if isinstance(file, StorePath) or scheme_of(file):
                raise UsageError(f"{option('--metrics-file')} {file}: must be a file on this host, not a URI")
            object.__setattr__(self, "metrics_file", Path(file))
        if port is not None and not 0 <= port <= _MAX_PORT:
            raise UsageError(
                f"{option('--metrics-port')} {port}: must be from 1 to {_MAX_PORT}, or 0 for any that is free"
            )
        if port is None and self.metrics_host != _LOOPBACK:
            raise UsageError(f"{option('--metrics-host')} says where a port is: give {option('--metrics-port')}, too")
        if not self.metrics_host:  # would be every address
            raise UsageError(f"{option('--metrics-host')} is empty: name an address of this host, or 0.0.0.0 for all")

    def _check_ray(self) -> None:
        if self.shard != WHOLE:
            raise UsageError(
                f"{option('--shard')} is for runs without a coordinator: with {option('--runner', 'ray')} leave it out"
            )
        if self.devices not in ("auto", "cpu"):
            raise UsageError(
                f"{option('--devices')} {self.devices}: Ray gives each worker its GPU; with "
                f"{option('--runner', 'ray')} use {option('--gpus-per-worker')}"
            )
        if self.devices == "cpu" and self.ray.gpus_per_worker:
            raise UsageError(
                f"{option('--devices', 'cpu')} and {option('--gpus-per-worker', 1)} contradict each other: choose one"
            )

    @property
    def wanted_risk(self) -> float:
        """Return `risk`, or what it is if nobody says."""
        return DEFAULT_RISK if self.risk is None else self.risk

    def rows_per_chunk(self, manifest_rows: int | None) -> int:
        """Return `chunk_rows`, or what suits a manifest of so many rows (None: unknown)."""
        if self.chunk_rows is not None:
            return self.chunk_rows
        wanted = 1024 if manifest_rows is None else math.ceil(manifest_rows / _CHUNKS)
        return min(max(wanted, _MIN_CHUNK_ROWS), _MAX_CHUNK_ROWS)

    def identity(
        self,
        *,
        bundle_digest: str | Mapping[str, str],
        manifest: Manifest,
        precision: str | Mapping[str, str],
        chunk_rows: int,
        known: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Return all that the rows depend on. Runs that differ in any of it can't share an output folder.

        The batch size, the device and the number of workers are not part of it: the rows don't depend on them, so a
        resumed run may change them. A key that is added later refuses the folders of earlier versions, so what is said
        of `known` runs is there only if it was asked for.

        Args:
            bundle_digest: the bundle's; name → digest of several, in whatever order.
            manifest: the list of images.
            precision: which of the bundle's graphs; name → precision of several.
            chunk_rows: manifest rows per part.
            known: digests of the earlier runs that results are taken over from.
        """
        of_known: dict[str, Any] = {}
        if known or self.known_by == "content":
            of_known["known_by"] = self.known_by
        if known:
            of_known.update(known=list(known), known_failed=self.known_failed)
        of_patches: dict[str, Any] = {}
        if self.patches is not None:
            of_patches["patches"] = self.patches
        if self.keep_above is not None:
            of_patches.update(keep_above=self.keep_above, risk=self.wanted_risk)
        if self.keep_top is not None:
            of_patches.update(keep_top=self.keep_top, risk=self.wanted_risk)
        return {
            "bundle": bundle_digest,
            "manifest": manifest.fingerprint,
            "image_folder": manifest.folder,
            "precision": precision,
            "path_column": self.columns.path_column,
            "id_column": self.columns.id_column,
            "root": self.columns.root,
            "chunk_rows": chunk_rows,
            "features": self.features,
            "small_images": self.small_images,
            "max_pixels": self.max_pixels,
            **of_known,
            **of_patches,
        }
