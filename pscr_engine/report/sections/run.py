"""The sections about the run itself: head, summary, what ran, where the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...html import ScoreFormat
from ...output.processes import Share, count_processes, shares_of, totals
from ...output.run_reader import RunReader
from ...output.score_columns import ScoreColumns
from ...records import STAGES
from ..charts import draw_stages
from ..formatting import count, images
from ..gather import Gathered

_MOST_PROCESSES = 10


def run_section(run: RunReader, gathered: Gathered, scale: ScoreFormat, score: ScoreColumns) -> dict[str, Any]:
    """Build what the template needs for the sections about the run."""
    success = run.success
    bundle = score.bundle_facts(run.run)
    words = [str(bundle[name]) for name in ("backbone", "precision") if name in bundle]
    when = str((success or {}).get("finished") or run.run.get("started", ""))[:16].replace("T", " ")
    lead = f"{images(gathered.rows)} of {run.run['settings']['manifest']}"
    lead += f", scored with {' '.join(words)}" if words else ""
    others = [each.score for each in run.scores if each != score]
    if score.model:
        lead += f": {score.score}" + (f", beside {', '.join(others)}" if others else "")
    if run.keep_above is not None:
        lead += f"; decided at a score of {run.keep_above:g} by some of the patches, so many scores are estimates"
    lead += f", {'finished' if success else 'started'} {when} UTC" if when else ""
    stages = _stages(success)
    seconds = {name: each for name, _, each, _ in stages}
    return {
        "run": {
            "name": run.name,
            "complete": success is not None,
            "missing": _missing(run),
            "lead": lead,
            "exemplars": bundle.get("exemplars"),
            "facts": _facts(run, bundle, success, score),
        },
        "tiles": _tiles(gathered, success, bundle, scale),
        "stages": stages,
        "slices": draw_stages(seconds),
        "stages_of": _stages_of(success),
        "stages_text": ", ".join(f"{name} {share:.0%}" for name, _, _, share in stages),
    }


def _tiles(
    gathered: Gathered, success: Mapping[str, Any] | None, bundle: Mapping[str, Any], scale: ScoreFormat
) -> list[tuple[str, str, str]]:
    """List the tiles of the summary: name, value, detail."""
    failures, shape = gathered.failures, gathered.shape
    kinds = [f"{count(number)} {name}" for name, number in failures.status.most_common() if name != "ok"]
    tiles = [
        ("Images", count(gathered.rows), f"{count(gathered.scored)} with a score"),
        ("Failures", count(failures.total), ", ".join(kinds) or "none"),
    ]
    if shape is not None:
        low, median, high = (float(shape.quantiles[index].value) for index in (50, 500, 950))
        tiles.append(("Median score", scale.score(median), f"90% from {scale.score(low)} to {scale.score(high)}"))
    if success and "decisions" in success:
        tiles.append(_decisions(success["decisions"]))
    if success and success.get("images_per_second"):
        tiles.append(("Images per second", *_speed(success)))
    parity = _mapping(bundle.get("parity"))
    if "precision" in bundle:
        tiles.append(("Precision", str(bundle["precision"]), f"parity {_verdict(parity)}" if parity else ""))
    return tiles


def _decisions(decisions: Mapping[str, Any]) -> tuple[str, str, str]:
    kept, images = int(decisions["keep"]), int(decisions["keep"]) + int(decisions["drop"])
    patches = decisions.get("patches_per_image")
    return "Kept", count(kept), f"of {count(images)}" + ("" if patches is None else f", by {patches:.1f} patches each")


def _facts(
    run: RunReader, bundle: Mapping[str, Any], success: Mapping[str, Any] | None, score: ScoreColumns
) -> list[tuple[str, str]]:
    """List what the run's files say of it: name and value, where there is one."""
    identity, settings, host = run.identity, run.run["settings"], _mapping(run.run.get("host"))
    sampling = _mapping(bundle.get("sampling"))
    facts = [
        ("Manifest", settings["manifest"]),
        ("Image folder", identity.get("image_folder")),
        ("Bundle", _of(settings.get("bundle"), score)),
        ("Digest", (digest := _of(identity.get("bundle"), score)) and f"{str(digest)[:16]}…"),
        ("Score", score.model and score.score),
        ("Backbone", bundle.get("backbone")),
        ("Sampling", sampling.get("name")),
        ("Exemplars", bundle.get("exemplars")),
        ("Precision", bundle.get("precision")),
        ("Parity", _parity(_mapping(bundle.get("parity")))),
        ("Host", f"{host['name']}, {host.get('machine')}, {host.get('cpus')} cores" if "name" in host else None),
        ("Devices", ", ".join(map(str, (success or {}).get("devices", []))) or settings.get("devices")),
        ("Engine", run.run.get("pscr_engine") and f"pscr-engine {run.run['pscr_engine']}"),
        ("Started", run.run.get("started")),
        ("Finished", (success or {}).get("finished")),
        ("Seconds", success and _seconds(success)),
    ]
    return [(name, str(value)) for name, value in [*facts, *_processes(shares_of(success))] if value]


def _speed(success: Mapping[str, Any]) -> tuple[str, str]:
    """Say how fast a process was, on average over all on record, and whose speed that is."""
    devices = ", ".join(map(str, success.get("devices", [])))
    on = f"on {devices}" if devices else ""
    shares = shares_of(success)
    number, sums = count_processes(shares), totals(shares)
    if number > 1 and sums["seconds"]:
        return f"{sums['images'] / sums['seconds']:,.1f}", f"per process, on average over {count(number)}"
    whose = "" if _is_whole(success) else f", for the {count(success.get('scored_by_last_run', 0))} images scored last"
    return f"{success['images_per_second']:,.1f}", on + whose


def _processes(shares: Sequence[Share]) -> list[tuple[str, str]]:
    """List what the last few processes did, if there were several."""
    if count_processes(shares) < 2:
        return []
    left_out = count_processes(shares[:-_MOST_PROCESSES])
    facts = [("Earlier processes", f"{count(left_out)}, not shown")] if left_out else []
    return facts + [("Process", _process(share)) for share in shares[-_MOST_PROCESSES:]]


def _process(share: Share) -> str:
    text = f"{images(int(share.get('images') or 0))} in {float(share.get('seconds') or 0):,.1f} s"
    text += f" on {share['host']}" if share.get("host") else ""
    text += f", shard {share['shard']}" if share.get("shard") else ""
    when = str(share.get("started") or "")[:19].replace("T", " ")
    return f"{text}, started {when} UTC" if when else text


def _stages_of(success: Mapping[str, Any] | None) -> str:
    """Say of which process the stages' seconds are, unless it scored all images."""
    if success is None or _is_whole(success):
        return ""
    return f" of the process that finished last, for {images(int(success.get('scored_by_last_run', 0)))}"


def _is_whole(success: Mapping[str, Any]) -> bool:
    """Tell whether the process that finished last scored all images."""
    return bool(success.get("scored_by_last_run", success["rows"]) == success["rows"])


def _parity(parity: Mapping[str, Any]) -> str | None:
    if not parity:
        return None
    srcc = "" if parity.get("srcc") is None else f", SRCC {parity['srcc']:.6f}"
    return (
        f"{_verdict(parity)}: largest difference "
        f"{parity['max_abs_diff']:.2e} of {parity['tolerance']:.2e} allowed{srcc}, on {parity['images']} images"
    )


def _verdict(parity: Mapping[str, Any]) -> str:
    return "passed" if parity.get("passed") else "failed, accepted on request"


def _seconds(success: Mapping[str, Any]) -> str:
    shares = shares_of(success)
    if (number := count_processes(shares)) > 1:
        sums = totals(shares)
        return f"{sums['seconds']:,.1f} of {count(number)} processes together, for {images(int(sums['images']))}"
    text = f"{success.get('seconds', 0):,.1f}, after {success.get('startup_seconds', 0):,.1f} to start"
    scored = success.get("scored_by_last_run", 0)
    return text if _is_whole(success) else f"{text}; for {count(scored)} images, the others were there before"


def _missing(run: RunReader) -> str:
    """Say how many parts are missing before a run's last one; return "" if none are."""
    if not run.indices:
        return ""
    gaps = run.indices[-1] + 1 - len(run.indices)
    return f" (parts missing before the last one: {count(gaps)})" if gaps else ""


def _stages(success: Mapping[str, Any] | None) -> list[tuple[str, int, float, float]]:
    """List the stages: name, items, seconds, share of all stages' seconds."""
    stages = _mapping((success or {}).get("stages"))
    total = sum(float(each["seconds"]) for each in stages.values())
    if not total:
        return []
    timed = [(name, stages[name]) for name in STAGES if name in stages]
    return [(name, int(each["items"]), float(each["seconds"]), float(each["seconds"]) / total) for name, each in timed]


def _of(value: object, score: ScoreColumns) -> object:
    """Return a bundle's value, of those that a run of several has by name."""
    return _mapping(value).get(score.model) if score.model else value


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
