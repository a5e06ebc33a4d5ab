"""What a run records of itself, in `_run.json` and `_SUCCESS`."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from .._version import __version__
from ..config import ScoreConfig
from ..host import usable_cpus
from ..manifests import Manifest
from ..output.shard import WHOLE
from ..records import CHECKS, STAGES
from .open_models import Model, Models
from .progress import Snapshot


def throughput_facts(
    config: ScoreConfig, snapshot: Snapshot, startup_seconds: float, devices: Sequence[str], backend: str
) -> dict[str, Any]:
    """Return what `_SUCCESS` says of the speed of the process that finished last.

    In a run that was gone on with, or has shards, that is not the whole run's: `processes` has all of them.
    """
    shard = {} if config.shard == WHOLE else {"shard": str(config.shard)}
    return {
        **shard,
        "scored_by_last_run": snapshot.scored,
        "startup_seconds": round(startup_seconds, 3),
        "seconds": round(snapshot.seconds, 3),
        "images_per_second": round(snapshot.images_per_second, 3) if snapshot.seconds else None,
        "devices": list(devices),
        "backend": backend,
        "stages": {
            name: {"items": items, "seconds": round(seconds, 6)}
            for name, (items, seconds) in snapshot.stages.items()
            if name in STAGES
        },
        **_decoding_checks(snapshot),
        **({"repeated": snapshot.stages.get("repeated", (0, 0.0))[0]} if config.once_per_content else {}),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _decoding_checks(snapshot: Snapshot) -> dict[str, Any]:
    """Count the images from a GPU's decoder that were compared with Pillow's, if any were."""
    verified, wrong = (snapshot.stages.get(name, (0, 0.0))[0] for name in CHECKS)
    return {"decoding_verified": {"images": verified, "wrong": wrong}} if verified else {}


def has_stamps(run: Mapping[str, Any]) -> bool:
    """Tell from `_run.json` whether the parts have stamps: what an earlier version began goes on without."""
    return bool(run.get("stamps"))


def run_facts(
    config: ScoreConfig,
    models: Models,
    manifest: Manifest,
    chunk_rows: int,
    known: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the content of `_run.json`: what was asked for, of which bundle, or of which by name, on which host."""
    settings = asdict(replace(config, bundle=None))
    settings.update(
        manifest=str(config.manifest), bundle=models.each(lambda model: str(model.choice)), out=str(config.out)
    )
    settings["shard"] = str(config.shard)
    settings["known"] = [str(each) for each in config.known]
    for each in ("metrics_file", "metrics_port", "metrics_host"):  # where this process tells of itself
        del settings[each]
    return {
        "pscr_engine": __version__,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "identity": run_identity(config, models, manifest, chunk_rows, known),
        "stamps": True,
        "settings": settings,
        "bundles" if models.named else "bundle": models.each(_bundle_facts),
        "host": {
            "name": platform.node(),
            "machine": platform.machine(),
            "cpus": usable_cpus(),
            "pid": os.getpid(),
        },
    }


def run_identity(
    config: ScoreConfig, models: Models, manifest: Manifest, chunk_rows: int, known: Sequence[str] = ()
) -> dict[str, Any]:
    """Return all that a run's rows depend on, as `ScoreConfig.identity` says."""
    return config.identity(
        bundle_digest=models.each(lambda model: model.bundle.digest),
        manifest=manifest,
        precision=models.each(lambda model: model.precision),
        chunk_rows=chunk_rows,
        known=known,
    )


def _bundle_facts(model: Model) -> dict[str, Any]:
    choice, bundle = model.choice, model.bundle
    return {
        "path": str(bundle.source or bundle.path.absolute()),
        "shipped_model": choice.model,
        "by_default": choice.default,
        "backbone": bundle.info.backbone,
        "sampling": bundle.info.sampling.as_json(),
        "exemplars": bundle.exemplars.count,
        "precision": model.precision,
        "parity": bundle.info.graphs[model.precision].parity.as_json(),
    }
