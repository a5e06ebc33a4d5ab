"""Which ways there are to see a run's metrics, opened before the run begins and closed when it has ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

from ..errors import MissingDependencyError, TooManyFailuresError, option
from .meter import Meter


@contextmanager
def metered(file: Path | None, port: int | None, host: str, out: object) -> Iterator[Meter]:
    """Show the metrics of a run, which is the body, in a file and on a port, as far as these are asked for.

    Args:
        file: see `ScoreConfig.metrics_file`.
        port: see `ScoreConfig.metrics_port`.
        host: see `ScoreConfig.metrics_host`.
        out: the run's output folder, where the file can't be.

    Yields:
        What is to be told of the run.

    Raises:
        MissingDependencyError: prometheus-client is not installed.
        UsageError: the file can't be written, or the port is in use; nothing has been made then.
    """
    meter = Meter()
    if file is None and port is None:
        yield meter
        return
    if find_spec("prometheus_client") is None:
        raise MissingDependencyError(
            "prometheus-client", option("--metrics-file" if file is not None else "--metrics-port"), "metrics"
        )
    from .file import written
    from .port import served

    with ExitStack() as stack:
        if port is not None:  # first: without it, no file is written
            stack.enter_context(served(meter, port, host))
        if file is not None:
            stack.enter_context(written(meter, file, out))
        try:
            yield meter
        except KeyboardInterrupt:
            meter.end("interrupted")
            raise
        except TooManyFailuresError:
            meter.end("too_many_failures")
            raise
        except BaseException:
            meter.end("failed")
            raise
