"""The metrics port: what Prometheus scrapes while a run goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from ..errors import UsageError, one_line, option
from .meter import Meter

log = logging.getLogger("pscr_engine")


@contextmanager
def served(meter: Meter, port: int, host: str) -> Iterator[None]:
    """Answer requests for what a meter says at http://HOST:PORT/metrics while the body runs.

    Args:
        meter: asked at each request.
        port: 0 for any that is free; the log says which.
        host: name or address of this host on which to listen.

    Raises:
        UsageError: nobody may listen there, or somebody does already.
    """
    registry = CollectorRegistry()
    registry.register(meter)
    try:
        server, thread = start_http_server(port, host, registry)
    except (OSError, UnicodeError) as error:  # an impossible name is a UnicodeError
        reason = getattr(error, "strerror", None) or one_line(error, 120)
        raise UsageError(
            f"{option('--metrics-port')} {port}: can't listen there on {host} ({reason}); choose another port, or 0 "
            f"for one that is free, and an address of this host as {option('--metrics-host')}"
        ) from error
    try:
        log.info("metrics: http://%s:%d/metrics", f"[{host}]" if ":" in host else host, server.server_port)
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
