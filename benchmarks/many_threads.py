"""Let 64 threads call one Scorer for a minute: every answer is compared, and nothing may be lost or left behind.

python -m benchmarks.many_threads
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import active_count
from time import monotonic, sleep
from typing import Any

from pscr_engine import Scorer
from pscr_engine.models import DEFAULT_MODEL

from .common import made_up_images, record, words

THREADS, SECONDS = 64, 60.0
METHOD = (
    "The shipped model in FP32 on the CPU; 64 threads call one Scorer without a pause for a minute, each call with one "
    "of 64 JPEGs of 512×512 pixels, every tenth with three of them. Answers are compared with those of one thread "
    "before. Memory is the resident set, read every ten seconds while the threads call; open files and threads before "
    "and after."
)


def memory_mb() -> float:
    """Return the resident set of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def open_files() -> int:
    """Count the file descriptors that are open."""
    return len(os.listdir("/proc/self/fd"))


def run(scorer: Scorer, data: list[bytes]) -> dict[str, Any]:
    """Call from all threads, and return what came of it."""
    expected = [scorer.score(image).score for image in data]
    scorer.score(data[:3])
    before = (open_files(), active_count())
    end = monotonic() + SECONDS

    def caller(number: int) -> Counter[str]:
        counts: Counter[str] = Counter()
        at = number
        while monotonic() < end:
            at = (at * 7 + number + 1) % len(data)
            several = [at, (at + 1) % len(data), (at + 2) % len(data)] if counts["calls"] % 10 == 9 else [at]
            found = scorer.score([data[index] for index in several])
            counts["calls"] += 1
            counts["answers"] += len(found)
            for index, image in zip(several, found, strict=True):
                wanted = expected[index]
                assert wanted is not None
                off = 1.0 if image.score is None else abs(image.score - wanted)
                counts["wrong"] += off > 1e-5
                counts["equal to the bit"] += off == 0
        return counts

    memory = []
    with ThreadPoolExecutor(THREADS) as threads:
        calls = [threads.submit(caller, number) for number in range(THREADS)]
        while not all(call.done() for call in calls):
            sleep(10)
            memory.append(memory_mb())
        total: Counter[str] = sum((call.result() for call in calls), Counter())
        fewest = min(call.result()["calls"] for call in calls)
    return {
        **{name: total[name] for name in ("calls", "answers", "wrong", "equal to the bit")},
        "fewest calls of a thread": fewest,
        "waiting afterwards": scorer.waiting,
        "open files, before and after": [before[0], open_files()],
        "threads, before and after": [before[1], active_count()],
        "memory_mb": memory,
    }


def main() -> None:
    threads = active_count()
    data = [path.read_bytes() for path in made_up_images()]
    with Scorer.open(DEFAULT_MODEL, device="cpu", precision="fp32", backend="onnxruntime") as scorer:
        figures = run(scorer, data)
    figures["threads left once it is closed"] = active_count() - threads
    print(figures)
    print(record("many-threads", METHOD, {"threads": THREADS, "seconds": SECONDS, **figures}))


if __name__ == "__main__":
    words(__doc__, ())
    main()
