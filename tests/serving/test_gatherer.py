"""Many callers at once: who waits for whom, who shares a batch, and who gets which error."""

import asyncio
import gc
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for

import numpy as np
import pytest

from pscr_engine import Scorer, Status
from pscr_engine.errors import BackendError, BusyError, UsageError

from ..helpers.fakes import FakeBackend
from ..helpers.images import encoded, pixels

D = 9
LONG = 60_000
POISON = 113
CLOSED = r"^this scorer is closed; open another one with Scorer\.open$"


class HeldBackend(FakeBackend):
    """Scores only while `gate` is open; fails on images that are all `POISON`."""

    def __init__(self, batch_size=4):
        super().__init__(D, batch_size)
        self.gate, self.opened, self.closed = threading.Event(), 0, 0

    def stages(self, settings):
        self.opened += 1
        return super().stages(settings)

    def close(self):
        self.closed += 1

    def score(self, patches, *, features=False):
        assert self.gate.wait(60)
        scored = super().score(patches, features=features)
        if any(value == POISON for value in scored.score):
            raise BackendError("a poisoned image")
        return scored


def plain(value):
    return np.full((32, 32, 3), value, np.uint8)


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def pscr_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("pscr-")]


class Held:
    """Makes scorers whose backend is held up, and holds a pool of callers."""

    def __init__(self, bundle, callers):
        self.bundle, self.callers, self.made = bundle, callers, []

    def __call__(self, **limits):
        backend = HeldBackend(limits.pop("batch_size", 4))
        scorer = Scorer(self.bundle, backend, **limits)
        self.made.append((scorer, backend))
        return scorer, backend


@pytest.fixture
def held(tiny):
    with ThreadPoolExecutor(80) as callers:
        held = Held(tiny, callers)
        yield held
        for scorer, backend in held.made:
            backend.gate.set()
            scorer.close()


def occupy(scorer, callers):
    """Let the backend be busy with one image."""
    first = callers.submit(scorer.score, plain(1))
    until(lambda: scorer._gatherer._under_way == 1 and not scorer.waiting)
    return first


def test_who_calls_alone_never_waits_for_company(held):
    scorer, backend = held(max_wait_ms=LONG, batch_size=64)
    backend.gate.set()
    start = time.monotonic()
    assert [scorer.score(plain(value)).score for value in (3, 4, 5)] == [3, 4, 5]
    assert time.monotonic() - start < 10
    assert backend.batches == [1, 1, 1]
    assert backend.opened == 1  # stages stay open between calls


def test_calls_at_the_same_time_share_batches(held):
    scorer, backend = held(max_wait_ms=LONG)
    first = occupy(scorer, held.callers)
    others = [held.callers.submit(scorer.score, plain(value)) for value in range(20, 28)]
    until(lambda: scorer._gatherer._under_way == 3)  # full batches go on, though the backend is busy
    backend.gate.set()
    assert first.result().score == 1
    assert [call.result().score for call in others] == list(range(20, 28))
    assert backend.batches == [1, 4, 4]


@pytest.mark.parametrize(("limit", "batches"), [(30, [1, 1, 1]), (LONG, [1, 2]), (0, [1, 1, 1])])
def test_the_wait_for_company_is_bounded(held, limit, batches):
    scorer, backend = held(max_wait_ms=limit)
    calls = [occupy(scorer, held.callers)]
    for value in (2, 3):
        calls.append(held.callers.submit(scorer.score, plain(value)))
        until(lambda: scorer.waiting or scorer._gatherer._under_way == len(calls))
        time.sleep(0.2)
    backend.gate.set()
    assert [call.result().score for call in calls] == [1, 2, 3]
    assert backend.batches == batches


def test_other_options_are_other_batches_first_come_first_served(held):
    scorer, backend = held(max_wait_ms=LONG)
    first = occupy(scorer, held.callers)
    calls = []
    for value in range(10, 16):
        calls.append(held.callers.submit(scorer.score, plain(value), features=value % 2 == 0, exemplar_scores=True))
        until(lambda: scorer.waiting == len(calls))
    backend.gate.set()
    first.result()
    for value, call in zip(range(10, 16), calls, strict=True):
        image = call.result()
        assert image.score == value
        assert (image.features is not None) == (value % 2 == 0)
        assert image.exemplar_scores.shape == (3,)
    assert backend.batches == [1] * 7


def test_a_failure_is_its_own_callers_alone(held):
    scorer, backend = held(max_wait_ms=LONG, batch_size=8)
    first = occupy(scorer, held.callers)
    values = [20, POISON, 21, 22, POISON, 23, 24, 25]
    calls = [held.callers.submit(scorer.score, [plain(value), encoded(pixels(40, 40, value))]) for value in values]
    broken = held.callers.submit(scorer.score, b"broken")
    until(lambda: scorer.waiting or scorer._gatherer._under_way > 1)
    backend.gate.set()
    assert first.result().score == 1
    assert broken.result().status is Status.UNDECODABLE
    for value, call in zip(values, calls, strict=True):
        if value == POISON:
            with pytest.raises(BackendError, match=r"^a poisoned image$"):
                call.result()
        else:
            whole, picture = call.result()
            assert whole.score == value
            assert picture.ok
    assert scorer.score(plain(7)).score == 7  # and it goes on


@pytest.mark.medium
def test_everybody_is_answered_whatever_fails(tiny):
    """Fail now and then in stages, and when they open and close, while callers come, give up, and at last close."""
    before = set(pscr_threads())
    dice = random.Random(5)
    lock = threading.Lock()

    def now_and_then(share):
        with lock:
            if dice.random() < share:
                raise RuntimeError("now and then")

    class Shaky(FakeBackend):
        def stages(self, settings):
            now_and_then(0.05)
            chain = super().stages(settings)
            closes = chain.close

            def close():
                closes()
                now_and_then(0.2)

            chain.close = close
            return chain

        def score(self, patches, *, features=False):
            now_and_then(0.05)
            return super().score(patches, features=features)

    scorer = Scorer(tiny, Shaky(D, 4), max_wait_ms=2, max_waiting=20)
    right, failed, wrong = [], [], []

    def call(seed):
        own = random.Random(seed)
        for _ in range(30):
            values = [own.randrange(250) for _ in range(own.choice([1, 1, 3, 9]))]
            try:
                way = own.randrange(4)
                if way == 0:
                    stream = scorer.stream([plain(value) for value in values * 5], features=own.random() < 0.5)
                    found = [next(stream) for _ in values]  # and the rest is not taken
                    stream.close()
                elif way == 1:
                    timeout = own.choice([0.002, 60])
                    waiting = scorer.score_async([plain(value) for value in values])
                    found = asyncio.run(asyncio.wait_for(waiting, timeout))
                else:
                    found = scorer.score([plain(value) for value in values])
            except (RuntimeError, UsageError, BusyError, TimeoutError) as error:
                failed.append(type(error))
                continue
            (right if [image.score for image in found] == values else wrong).append(values)

    threads = [threading.Thread(target=call, args=(seed,), daemon=True) for seed in range(16)]
    for thread in threads:
        thread.start()
    until(lambda: len(right) + len(failed) > 300, 60)
    scorer.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert not wrong
    assert len(right) + len(failed) == 16 * 30
    assert len(right) > 50
    assert {RuntimeError, UsageError} <= set(failed)
    until(lambda: set(pscr_threads()) <= before)


def test_stages_that_do_not_open_are_an_error_of_that_call(held):
    scorer, backend = held()
    backend.gate.set()
    opens, backend.stages = backend.stages, lambda settings: (_ for _ in ()).throw(BackendError("no memory"))
    for _ in range(2):
        with pytest.raises(BackendError, match=r"^no memory$"):
            scorer.score([plain(1), plain(2)])
    backend.stages = opens
    assert scorer.score(plain(3)).score == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_gathering_thread_that_dies_leaves_nobody_waiting(held, monkeypatch):
    scorer, backend = held(max_wait_ms=LONG)
    first = occupy(scorer, held.callers)
    monkeypatch.setattr(scorer._gatherer, "_begin", lambda taken: (_ for _ in ()).throw(SystemError("a bug")))
    calls = [held.callers.submit(scorer.score, plain(value)) for value in range(2, 12)]
    done, still = wait_for(calls, 30)
    assert not still
    assert {type(call.exception()) for call in done} <= {SystemError, UsageError}
    assert SystemError in {type(call.exception()) for call in done}
    backend.gate.set()
    assert first.result().score == 1


def test_a_host_without_room_for_threads_is_an_error_of_that_call(held, monkeypatch):
    scorer, backend = held()
    backend.gate.set()
    starts, refused = threading.Thread.start, set()

    def start(thread):
        if thread.name in refused:
            raise RuntimeError("can't start new thread")
        starts(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    for name in ("pscr-gather", "pscr-fetch", "pscr-infer"):
        refused.add(name)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            scorer.score(plain(1))
        assert scorer.waiting == 0
        refused.clear()
    assert scorer.score(plain(2)).score == 2


def test_a_full_queue_holds_threads_up_and_turns_tasks_away(held):
    scorer, backend = held(max_wait_ms=LONG, max_waiting=3)
    calls = [occupy(scorer, held.callers)]
    calls += [held.callers.submit(scorer.score, plain(value)) for value in range(2, 22)]
    until(lambda: scorer.waiting == 3)

    async def one_more():
        return await scorer.score_async(plain(50))

    with pytest.raises(BusyError, match=r"^3 images are waiting to be scored, and no more than 3 may \(max_waiting\)"):
        asyncio.run(one_more())
    assert scorer.waiting <= 3
    backend.gate.set()
    assert sorted(call.result().score for call in calls) == list(range(1, 22))
    assert asyncio.run(one_more()).score == 50


def test_tasks_are_answered_in_order_and_leave_the_queue_when_cancelled(held):
    scorer, backend = held(max_wait_ms=LONG)

    async def main():
        first = asyncio.create_task(scorer.score_async(plain(1)))
        while scorer.waiting or not scorer._gatherer._under_way:
            await asyncio.sleep(0.005)
        several = asyncio.create_task(scorer.score_async([plain(value) for value in range(10, 20)]))
        await asyncio.sleep(0.05)
        doomed = asyncio.create_task(scorer.score_async(plain(90), features=True))
        later = asyncio.create_task(scorer.score_async([encoded(plain(30)), plain(31)]))
        await asyncio.sleep(0.05)
        before = scorer.waiting
        doomed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doomed
        assert scorer.waiting < before  # what waited behind it may have gone on, too
        first.cancel()  # it is being scored, for nobody now
        with pytest.raises(asyncio.CancelledError):
            await first
        backend.gate.set()
        assert [image.score for image in await several] == list(range(10, 20))
        assert [image.score for image in await later] == [30, 31]
        assert await scorer.score_async([]) == []

    asyncio.run(main())
    assert sum(backend.batches) == 1 + 10 + 2  # the cancelled one was never scored


def test_close_ends_those_who_wait_and_finishes_what_is_under_way(held):
    scorer, backend = held(max_wait_ms=LONG, max_waiting=4)
    first = occupy(scorer, held.callers)
    waiting = [held.callers.submit(scorer.score, plain(value)) for value in (2, 3)]  # too few for a batch
    waiting.append(held.callers.submit(list, scorer.stream([plain(4)], features=True)))
    until(lambda: scorer.waiting == 3)
    blocked = held.callers.submit(scorer.score, [plain(5), plain(6), plain(7)])  # no room
    time.sleep(0.1)
    closing = [held.callers.submit(scorer.close) for _ in range(3)]
    done, still = wait_for([*waiting, blocked], 30)
    assert not still
    for call in done:
        with pytest.raises(UsageError, match=CLOSED):
            call.result()
    assert not first.done()
    assert not any(call.done() for call in closing)
    backend.gate.set()
    assert first.result().score == 1
    for call in closing:
        call.result()
    assert backend.closed == 1
    with pytest.raises(UsageError, match=CLOSED):
        asyncio.run(scorer.score_async(plain(1)))


@pytest.mark.medium
def test_nothing_is_left_behind(tiny, tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(pixels(50, 60)))
    gc.collect()
    before, files = set(pscr_threads()), len(os.listdir("/proc/self/fd"))  # other tests' may end meanwhile
    for closes in (True, False):
        scorer = Scorer.open(tiny.path)
        assert not set(pscr_threads()) - before  # none before the first use
        assert all(image.ok for image in scorer.score([tmp_path / "a.png"] * 30))
        assert set(pscr_threads()) - before
        stream = scorer.stream(tmp_path / "a.png" for _ in range(1000))
        assert next(stream).ok
        del stream
        if closes:
            scorer.close()
        del scorer
        gc.collect()
        until(lambda: not set(pscr_threads()) - before)
    assert len(os.listdir("/proc/self/fd")) <= files


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_wait_ms": -1}, r"^max_wait_ms -1: must be from 0 to 60000$"),
        ({"max_wait_ms": float("nan")}, "^max_wait_ms nan"),
        ({"max_wait_ms": True}, "^max_wait_ms True"),
        ({"max_waiting": 0}, r"^max_waiting 0: must be at least 1$"),
    ],
)
def test_limits_that_make_no_sense(tiny, limits, message):
    with pytest.raises(UsageError, match=message):
        Scorer.open(tiny.path, **limits)
    with pytest.raises(UsageError, match=message):
        Scorer(tiny, FakeBackend(D), **limits)
