"""How the process of a command ends: without a crash of some library's threads at the very end."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import NoReturn

_FLUSH_FAILED = 120  # as Python itself has it


def leave(code: int) -> NoReturn:
    """Flush the streams, run exit handlers, and end the process without the interpreter's own finalisation.

    During that, threads of C++ libraries that want Python's lock are ended by force, which C++ answers with an
    abort: one or two runs in a hundred on a busy host then had the exit code of a crash, after all was done and said
    (Python before 3.14: python/cpython#87135).

    Args:
        code: the exit code.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads and executors, as at the end of `main`
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # as it is where the shell closed it: 2>&-
                stream.flush()
        except ValueError:  # it is closed
            continue
        except OSError:  # nobody reads it any more
            code = code or _FLUSH_FAILED
    os._exit(code)
