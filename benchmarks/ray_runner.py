"""Measure what Ray costs: the same run by the Ray runner and by the local one; handing out chunks to many workers.

python -m benchmarks.ray_runner [overhead] [handout]
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import count
from time import perf_counter
from typing import Any

from pscr_engine.host import usable_cpus
from pscr_engine.records import STAGES
from pscr_engine.runners.ledger import Chunk, ChunkDone, Ledger
from pscr_engine.runners.progress import RunProgress, Snapshot
from pscr_engine.runners.ray.actor import Answer

from .common import RESULTS, record, spread, untrained_bundle, versions, words
from .pipeline import whole_run

IMAGES, CHUNK_ROWS, ROUNDS = 1800, 60, 3
CHUNK_SECONDS, CHUNKS_PER_WORKER = 2.0, 20
HOSTS = 4
METHOD = (
    f"overhead: resnet18, random weights, INT8, {IMAGES} JPEGs of 512 x 512 from disk to Parquet, {CHUNK_ROWS} rows "
    "per chunk, by `pscr-engine score`: on a Ray cluster on this host that has one CPU per core and was there before, "
    "and without Ray with as many worker processes; then one worker with all cores, both ways. In turn, in rounds. "
    "seconds: from when the first worker is ready to the last part, as in _SUCCESS; whole: the process, its start "
    "and end included. overhead: median over rounds of Ray's seconds over the local runner's, less 1. Ray's own "
    "daemons share the cores. handout: the pool of the Ray runner with real Ray calls to "
    f"simulated workers, asyncio tasks in {HOSTS} actors on the same cores, that take {CHUNK_SECONDS:g} s per chunk; "
    f"{CHUNKS_PER_WORKER} chunks per worker. busy: share of the workers' time that they had a chunk to work on, from "
    "the first chunk given out to the last one done. at most: chunks per second with workers that take no time."
)


def main(sections: list[str]) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    path = RESULTS / "ray.json"
    results: dict[str, Any] = json.loads(path.read_text())["results"] if path.exists() else {}
    for name, section in (("overhead", overhead), ("handout", handout)):
        if name in sections or not sections:
            results[name] = section()
            print(record("ray", METHOD, {"results": results, "versions": versions("ray")}).read_text())


def overhead() -> dict[str, Any]:
    bundle = untrained_bundle("resnet18", ("fp32", "int8"))
    cores = usable_cpus()
    ray = ["auto", "--runner", "ray", "--cpus-per-worker"]
    ways = {
        f"{cores} workers of 1 core, local": [",".join(["cpu"] * cores)],
        f"{cores} workers of 1 core, Ray": [*ray, "1"],
        f"1 worker of {cores} cores, local": ["cpu"],
        f"1 worker of {cores} cores, Ray": [*ray, str(cores)],
    }
    figures: dict[str, dict[str, list[float]]] = {way: defaultdict(list) for way in ways}
    _ray("start", "--head", f"--num-cpus={cores}", "--include-dashboard=false")
    try:
        for number in range(ROUNDS + 1):
            for way, options in ways.items():
                count = IMAGES if number else IMAGES // 10  # the first round warms up
                start = perf_counter()
                rate = whole_run(bundle, count, *options, "--chunk-rows", str(CHUNK_ROWS), "--precision", "int8")
                if number:
                    figures[way]["seconds"].append(count / rate)
                    figures[way]["whole"].append(perf_counter() - start)
    finally:
        _ray("stop", "--force")
    pairs = list(ways)
    return {
        "ways": {way: {name: spread(values) for name, values in samples.items()} for way, samples in figures.items()},
        "overhead": {
            pairs[at].rpartition(",")[0]: spread(
                [
                    theirs / ours - 1
                    for ours, theirs in zip(
                        figures[pairs[at]]["seconds"], figures[pairs[at + 1]]["seconds"], strict=True
                    )
                ]
            )
            for at in (0, 2)
        },
    }


def _ray(*arguments: str) -> None:
    command = [sys.executable, "-m", "ray.scripts.scripts", *arguments]
    subprocess.run(command, check=True, capture_output=True)


class SimulatedWorkers:
    """Many simulated workers in one asyncio actor; they sleep instead of scoring."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._numbers = seconds, count(1)
        self._locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def open(self, worker: int) -> Answer:
        return Answer(node=f"simulated {worker}", stages=_STAGES, number=next(self._numbers))

    async def score(self, worker: int, chunk: Chunk) -> Answer:
        async with self._locks[worker]:
            if self._seconds:
                await asyncio.sleep(self._seconds)
        done = ChunkDone(chunk.index, len(chunk.rows), Counter(ok=len(chunk.rows)))
        return Answer(done=done, stages=_STAGES, number=next(self._numbers))

    async def progress(self, worker: int) -> Answer:
        return Answer(under_way=Counter(ok=1), stages=_STAGES, number=next(self._numbers))


_STAGES = dict.fromkeys(STAGES, (1000, 1.0))


class SimulatedFleet:
    """A `Fleet` for the Ray runner's pool, whose workers are simulated."""

    needs = "nothing"

    def __init__(self, ray: Any, workers: int, seconds: float) -> None:
        actor = ray.remote(num_cpus=0, max_concurrency=4 * workers)(SimulatedWorkers)
        self._hosts = [actor.remote(seconds) for _ in range(HOSTS)]
        ray.get([host.progress.remote(0) for host in self._hosts])
        self._workers, self._started = workers, 0

    def wanted(self) -> int:
        return self._workers

    def start(self) -> SimulatedHandle:
        self._started += 1
        return SimulatedHandle(self._hosts[self._started % HOSTS], self._started)


class SimulatedHandle:
    """A `Handle` for the Ray runner's pool, of one simulated worker."""

    def __init__(self, host: Any, number: int) -> None:
        self._host, self._number = host, number

    def open(self) -> Any:
        return self._host.open.remote(self._number)

    def score(self, chunk: Chunk) -> Any:
        return self._host.score.remote(self._number, chunk)

    def progress(self) -> Any:
        return self._host.progress.remote(self._number)

    def kill(self) -> None:
        pass

    def node_is_gone(self, node_id: str, error: Exception) -> bool:
        return False


def handout() -> dict[str, Any]:
    return {f"{workers} workers": _handed_out(workers) for workers in (16, 64, 256, 1024)}


def _handed_out(workers: int) -> dict[str, float]:
    chunks = workers * CHUNKS_PER_WORKER
    seconds = _pool_seconds(workers, chunks, CHUNK_SECONDS)
    most = max(chunks, 4000)
    return {
        "chunks": chunks,
        "seconds": round(seconds, 2),
        "busy": round(CHUNKS_PER_WORKER * CHUNK_SECONDS / seconds, 4),
        "chunks per second": round(chunks / seconds, 1),
        "at most": round(most / _pool_seconds(workers, most, 0), 1),
    }


def _pool_seconds(workers: int, chunks: int, seconds: float) -> float:
    import ray

    from pscr_engine.runners.ray.pool import RayPool

    ray.init(address="local", num_cpus=HOSTS, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        fleet = SimulatedFleet(ray, workers, seconds)
        seen: list[Snapshot] = []
        ledger = Ledger(chunk_rows=1000, end=1000 * chunks)
        start = perf_counter()
        RayPool(fleet, ledger, RunProgress(1000 * chunks, 0, seen.append)).run()
        return perf_counter() - start
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(words(__doc__, ("overhead", "handout")))
