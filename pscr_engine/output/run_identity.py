"""Which run an output folder is of: a new one, the one that is there, or another, which is refused."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any

from ..errors import OutputError, option
from .folder import Folder, Lock
from .parts import is_part
from .processes import is_record
from .run_file import OLD_RUN_FILE, RUN_FILE, has_run_file, read_run_file, rename_old_run_file
from .shard import WHOLE, Shard

log = logging.getLogger("pscr_engine")

SUCCESS_FILE = "_SUCCESS"


def adopt_run(folder: Folder, run: Mapping[str, Any], shard: Shard) -> dict[str, Any]:
    """Make a folder this run's, if no other run has parts there, and return what it says of its run.

    Args:
        folder: the output folder.
        run: what to write to `_run.json`; its "identity" must equal that of a run with parts.
        shard: the shard of the folder that this process has locked.

    Raises:
        OutputError: there is another run, with parts or with another process at work, or a damaged file.
    """
    if not has_run_file(folder.names()):
        folder.create(RUN_FILE, as_json(run))
    if shard != WHOLE:
        folder.wait_for_replacing()
    earlier = _read(folder)
    if (refusal := _difference(folder, earlier, run)) is not None:
        _replace(folder, run, shard, refusal)
        earlier = dict(run)
    rename_old_run_file(folder)
    return earlier


def purpose_of(run: Mapping[str, Any]) -> str:
    """Name a run by its identity, in few characters, for the locks of shards."""
    return hashlib.sha256(json.dumps(run["identity"], sort_keys=True).encode()).hexdigest()[:16]


def as_json(value: Mapping[str, Any]) -> bytes:
    """Return what is written to a folder's files."""
    return (json.dumps(value, indent=2) + "\n").encode()


def _replace(folder: Folder, run: Mapping[str, Any], shard: Shard, refusal: OutputError) -> None:
    """Put `run` in the place of one without parts, or raise `refusal`.

    Of shards that start at once, one does so; the others find it done. None does while a shard is at work on the run
    that is there, with or without a part: that is what `Folder.replacing` and the purposes of locks are for.
    """
    if any(map(is_part, folder.names())):
        raise refusal
    if shard == WHOLE:  # nobody else can have a lock
        _write_anew(folder, run)
        return
    with folder.replacing() as claim:
        if _difference(folder, _read(folder), run) is None:
            return
        if folder.rival(shard, purpose_of(run)) is not None or any(map(is_part, folder.names())):
            raise refusal
        _write_anew(folder, run, claim)


def _write_anew(folder: Folder, run: Mapping[str, Any], claim: Lock | None = None) -> None:
    log.info("%s: holds a run that has not begun; this one takes its place", folder.location)
    if claim is not None:
        claim.check()
    folder.remove([SUCCESS_FILE, *filter(is_record, folder.names()), OLD_RUN_FILE])
    folder.write(RUN_FILE, lambda file: file.write(as_json(run)))


def _read(folder: Folder) -> dict[str, Any]:
    try:
        earlier = json.loads(read_run_file(folder.location, folder.read))
        if not isinstance(earlier["identity"], dict):
            raise TypeError
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{folder.location}: its {RUN_FILE} is damaged; choose another {option('--out')} "
            f"or use {option('--overwrite', True)}"
        ) from error
    return dict(earlier)


def _difference(folder: Folder, earlier: Mapping[str, Any], run: Mapping[str, Any]) -> OutputError | None:
    """Return the error that says in what a run differs from that in the folder; None if they are the same."""
    theirs, ours = earlier["identity"], run["identity"]
    for name in {**ours, **theirs}:  # what one of them lacks is compared, too
        if theirs.get(name) != ours.get(name):
            which = f"{_short(theirs.get(name))}, now {_short(ours.get(name))}"
            advice = f"choose another {option('--out')}"
            if name == "bundle":
                which, advice = _bundle_names(earlier, run) or (which, advice)
            if name == "manifest":
                which, advice = _manifest_names(folder, earlier, run) or (which, advice)
            return OutputError(
                f"{folder.location}: holds a run with another {name.replace('_', ' ')} ({which}); "
                f"{advice} or use {option('--overwrite', True)}"
            )
    return None


def _manifest_names(folder: Folder, earlier: Mapping[str, Any], run: Mapping[str, Any]) -> tuple[str, str] | None:
    """Say which manifest the run in the folder has and which one this run has, and what to do if one has changed."""
    try:
        then, now = (str(each["settings"]["manifest"]).rstrip("/") for each in (earlier, run))
    except (KeyError, TypeError):  # a run of an earlier version, or a damaged file
        return None
    if then != now:
        return f"{then}, now {now}", f"choose another {option('--out')}"
    known = option("--known", str(folder.location))
    return (
        f"{then}, which has changed since",
        f"choose another {option('--out')}, with {known} to score only what is new,",
    )


def _bundle_names(earlier: Mapping[str, Any], run: Mapping[str, Any]) -> tuple[str, str] | None:
    """Say which bundle the run in the folder has and which one this run has, and how to go on with the former.

    Returns:
        None if names tell no difference: the content has changed.
    """
    try:
        then, now = earlier["settings"]["bundle"], run["settings"]["bundle"]
        described = _describe_bundles(earlier), _describe_bundles(run)
    except (KeyError, TypeError, AttributeError):  # a run of an earlier version, or a damaged file
        return None
    if then == now:
        return None
    named = [f"{name}={each}" for name, each in then.items()] if isinstance(then, dict) else [then]
    flags = " ".join(f"{option('--bundle')} {each}" for each in named)
    return f"{described[0]}, now {described[1]}", f"go on with {flags}, choose another {option('--out')}"


def _describe_bundles(run: Mapping[str, Any]) -> str:
    """Say which bundle a run has, or, by name, which bundles."""
    given = run["settings"]["bundle"]
    if not isinstance(given, dict):
        return _describe_bundle(given, run["bundle"])
    return " and ".join(f"{name}={_describe_bundle(each, run['bundles'][name])}" for name, each in given.items())


def _describe_bundle(name: str, facts: Mapping[str, Any]) -> str:
    shipped = facts.get("shipped_model") is not None
    by_default = ", taken since none was named" if facts.get("by_default") else ""
    return f"the shipped model {name}{by_default}" if shipped else f"{name}{by_default}"


def _short(value: object) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 24 else text[:21] + "..."
