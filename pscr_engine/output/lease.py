"""Leases, the claims on shards in an object store: objects that their holders keep renewing.

No clock is compared with another host's: a lease is dead when it has not changed for as long as `SECONDS` while
somebody watched it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic, sleep

from ..errors import InUseError, StoreError, UsageError
from ..stores import objects
from ..stores.objects import StoredObject
from ..stores.uri import StorePath
from .folder import holder, in_use
from .shard import Shard

log = logging.getLogger("pscr_engine")

LEASES = ".locks"
_REPLACING = "replacing"
_NAME = re.compile(r"(\d+)-of-(\d+)")


def _seconds() -> float:
    text = os.environ.get("PSCR_ENGINE_LEASE_SECONDS") or "30"
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 3600:
        raise UsageError(f"PSCR_ENGINE_LEASE_SECONDS={text}: must be a number from 1 to 3600")
    return seconds


SECONDS = _seconds()
"""A lease that has not been renewed for so long is dead. It is renewed three times as often."""


class Lease:
    """A `pscr_engine.output.folder.Lock` on a shard in an object store; a thread renews it.

    Args:
        path: where the lease's object is.
        token: tells this holder's lease from others'.
        stored: the object as it was put last.
        purpose: names the run that it is for.
    """

    descriptors: Sequence[int] = ()

    def __init__(self, path: StorePath, token: str, stored: StoredObject, purpose: str = "") -> None:
        self._path, self._token, self._stored, self._purpose = path, token, stored, purpose
        self._released = threading.Event()
        self._lost = ""
        self._renewed = monotonic()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise InUseError if the lease has been lost."""
        if not self._lost and monotonic() - self._renewed > SECONDS:
            self._lost = "it could not be renewed in time"
        if self._lost:
            raise InUseError(
                f"{self._path.parent.parent}: the claim to write there is lost ({self._lost}); "
                "see that no other run is at work there, and give the same command again to go on"
            )

    def release(self) -> None:
        """Stop renewing the lease, and remove it if it is still this process's."""
        self._released.set()
        self._thread.join(timeout=SECONDS)
        if not self._lost:
            try:
                if _token(self._path) == self._token:
                    objects.remove([self._path])
            except StoreError as error:  # without renewal it is dead soon
                log.warning("%s", error)

    def _renew(self) -> None:
        while not self._released.wait(SECONDS / 3):
            begun = monotonic()
            try:
                if _token(self._path) == self._token:
                    objects.put_where_possible(self._path, _content(self._token, self._purpose), self._stored)
                # Whether the condition held or not: it may have been our own put whose answer was lost.
                stored = _if_ours(self._path, self._token)
            except StoreError as error:
                log.warning("%s", error)
                continue
            if stored is None:
                self._lost = "another process has taken it over"
                return
            self._stored, self._renewed = stored, begun


def claim(folder: StorePath, shard: Shard, purpose: str = "") -> Lease:
    """Claim a shard of an output folder. A lease that proves dead is taken over.

    Raises:
        InUseError: another process is at work there.
        StoreError: the store can't be read or written.
    """
    lease = _claim_own(folder, shard, purpose)
    try:
        for path, other in _leases(folder):
            if other.count != shard.count:
                if (who := _living(path)) is not None:
                    raise in_use(folder, who, shard, other)
                objects.remove([path])
    except BaseException:
        lease.release()
        raise
    return lease


@contextmanager
def replacing(folder: StorePath) -> Iterator[Lease]:
    """Claim to replace what an output folder says of its run; waits while another process does so."""
    path, token = folder / LEASES / _REPLACING, secrets.token_hex(8)
    lease = None
    while lease is None:
        seen = objects.look(path)
        if seen is None or _living(path) is None:
            lease = _put_lease(path, token, "", seen)
    try:
        yield lease
    finally:
        lease.release()


def wait_for_replacing(folder: StorePath) -> None:
    """Wait until no process has the claim of `replacing`. That of one that has died is cleared away."""
    if objects.look(folder / LEASES / _REPLACING) is not None:
        with replacing(folder):
            pass


def rival(folder: StorePath, shard: Shard, purpose: str) -> str | None:
    """Return who has another shard, of the same count, for another purpose; None if nobody who is alive."""

    def rival_at(path: StorePath) -> str | None:
        who = None if _fact(path, "purpose") == purpose else _living(path)
        return None if _fact(path, "purpose") == purpose else who  # taken over meanwhile

    others = [path for path, other in _leases(folder) if other.count == shard.count and other != shard]
    with ThreadPoolExecutor(min(64, max(1, len(others)))) as threads:  # a dead one takes as long as a lease lasts
        return next((who for who in threads.map(rival_at, others) if who is not None), None)


def _claim_own(folder: StorePath, shard: Shard, purpose: str) -> Lease:
    path, token = folder / LEASES / f"{shard.index}-of-{shard.count}", secrets.token_hex(8)
    while True:
        # Looked at first: without conditional puts, a put would take the lease from a living holder.
        seen = objects.look(path)
        if seen is not None and (who := _living(path)) is not None:
            raise in_use(folder, who, shard, shard)
        if (lease := _put_lease(path, token, purpose, seen)) is not None:
            return lease


def _put_lease(path: StorePath, token: str, purpose: str, seen: StoredObject | None) -> Lease | None:
    """Put a lease in the place of a dead one that was `seen`, or of none; return None if another was faster."""
    objects.put_where_possible(path, _content(token, purpose), seen or "new")
    # Read back, for stores that ignore conditions, and for answers that were lost.
    stored = _if_ours(path, token)
    return None if stored is None else Lease(path, token, stored, purpose)


def _living(path: StorePath) -> str | None:
    """Return who holds a lease, if it is renewed while we watch; None if it is dead."""
    before = objects.look(path)
    if before is None:
        return None
    log.info("%s is there: seeing for up to %g s whether the process that holds it is alive", path, SECONDS)
    begun = monotonic()
    while monotonic() - begun < SECONDS:
        sleep(min(1.0, SECONDS / 10))
        now = objects.look(path)
        if now is None:
            return None
        if now.state != before.state:
            return _fact(path, "holder") or "unknown"
    return None


def _leases(folder: StorePath) -> list[tuple[StorePath, Shard]]:
    names = [(stored.path, _NAME.fullmatch(stored.name)) for stored in objects.listed(folder / LEASES)]
    return [(path, Shard(int(match[1]), int(match[2]))) for path, match in names if match]


def _content(token: str, purpose: str) -> bytes:
    # Other content each time, so that the ETag shows the renewal.
    return json.dumps(
        {"holder": holder(), "purpose": purpose, "token": token, "renewal": secrets.token_hex(4)}
    ).encode()


def _if_ours(path: StorePath, token: str) -> StoredObject | None:
    stored = objects.look(path)
    return stored if stored is not None and _token(path) == token else None


def _token(path: StorePath) -> str:
    return _fact(path, "token")


def _fact(path: StorePath, name: str) -> str:
    try:
        value = json.loads(objects.read(path))
    except (FileNotFoundError, ValueError):
        return ""
    return str(value.get(name, "")) if isinstance(value, dict) else ""
