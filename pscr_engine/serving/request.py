"""What one caller asks for: a few images, scored with the same settings."""

from __future__ import annotations

from concurrent.futures import Future
from copy import copy
from dataclasses import dataclass, field
from time import monotonic

from ..records import Query
from ..stages.base import StageSettings


@dataclass(slots=True, eq=False)
class Request:
    """A few images of one caller, on their way to their scores.

    Args:
        queries: the images, at most `settings.rows`; the stages fill them in.
        settings: how they are scored.
        answer: gets the scored queries, or the error.
        arrived: when it began to wait, in seconds of `monotonic`.
        alone: whether it must not share a batch, since one that it was in has failed.
        started: whether it has been taken from the queue; from then on it can't be cancelled.
        withdrawn: whether nobody waits for it any more, so that it needs no second try.
    """

    queries: list[Query]
    settings: StageSettings
    answer: Future[list[Query]] = field(default_factory=Future)
    arrived: float = field(default_factory=monotonic)
    alone: bool = False
    started: bool = False
    withdrawn: bool = False
    _as_they_came: list[Query] = field(default_factory=list)

    @property
    def images(self) -> int:
        """Return how many images it has."""
        return len(self.queries)

    @property
    def key(self) -> object:
        """Return what requests must agree on to share a batch."""
        return settings_key(self.settings)

    def start(self) -> bool:
        """Note that it is being scored, and keep what a second try needs; return whether anybody still waits for it."""
        if not self.started and not self.answer.set_running_or_notify_cancel():
            return False
        self.started = True
        # Encoded bytes and pixels are shared by the copies; stages only let go of them.
        self._as_they_came = [copy(query) for query in self.queries]
        return True

    def restore(self) -> None:
        """Undo what stages have done to the queries."""
        self.queries = self._as_they_came


def settings_key(settings: StageSettings) -> tuple[object, ...]:
    """Return what of a run's settings decides how images are scored."""
    return settings.decoding, settings.batch_size, settings.features, settings.exemplar_scores
