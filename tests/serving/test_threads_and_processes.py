"""One scorer for 64 threads; and what becomes of it after a fork, and at the end of a program."""

import asyncio
import random
import subprocess
import sys
import threading
import time

import pytest

from pscr_engine import Scorer, Status

from ..helpers.images import encoded, pixels
from ..helpers.tiny import make_bundle

THREADS = 64
CALLS = 6


def picture(number):
    """Return an image, each in one of several forms; some are broken."""
    if number % 17 == 5:
        return b"broken"
    image = pixels(34 + number % 50, 40 + number % 37, number)
    return image if number % 3 == 0 else encoded(image, "JPEG" if number % 3 == 1 else "PNG")


@pytest.mark.medium
@pytest.mark.parametrize("sampling", ["ops", "rps"])
def test_64_threads_get_the_answers_of_one(tmp_path, sampling):
    bundle = make_bundle(tmp_path / "m.pscr", sampling=sampling)
    pictures = [picture(number) for number in range(120)]
    with Scorer.open(bundle.path, device="cpu") as alone:
        expected = [(image.status, image.score, image.score_std, image.error) for image in alone.score(pictures)]
    assert {status for status, *_ in expected} == {Status.OK, Status.UNDECODABLE}
    wrong, answered, before = [], [], set(threading.enumerate())
    scorer = Scorer.open(bundle.path, device="cpu")
    explained = scorer.explain(pictures[0]).score

    def call(seed):
        dice = random.Random(seed)
        for _ in range(CALLS):
            chosen = [dice.randrange(len(pictures)) for _ in range(dice.choice([1, 1, 2, 7]))]
            images = [pictures[number] for number in chosen]
            way = dice.randrange(5)
            if way == 0:
                found = list(scorer.stream(iter(images), features=seed % 8 == 0))
            elif way == 1:
                found = asyncio.run(scorer.score_async(images))
            elif way == 2 and seed % 16 == 0:
                found = scorer.score(images)
                if abs(scorer.explain(pictures[0]).score - explained) > 1e-5:
                    wrong.append("explain")
            else:
                found = [scorer.score(image) for image in images]
            answered.append(len(found))
            for number, image in zip(chosen, found, strict=True):
                # To the bit: on a processor, images are computed one by one.
                if (image.status, image.score, image.score_std, image.error) != expected[number]:
                    wrong.append((number, image, expected[number]))

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive()
    assert not wrong
    assert len(answered) == THREADS * CALLS
    assert scorer.waiting == 0
    scorer.close()
    assert set(threading.enumerate()) <= before


def run(program, *arguments):
    start = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process, time.monotonic() - start


FORK = """
import asyncio, gc, multiprocessing, os, sys, threading
import numpy as np
from pscr_engine import Scorer
from pscr_engine.errors import UsageError

image = np.full((40, 40, 3), 7, np.uint8)
scorer = Scorer.open(sys.argv[1], device="cpu")
expected = scorer.score(image).score
stream = scorer.stream([image] * 100)
next(stream)
busy = threading.Event()
def work():
    while not busy.is_set():
        assert scorer.score(image).score == expected
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()

def refused(use):
    try:
        use()
    except UsageError as error:
        return str(error).startswith("this scorer was opened before a fork")
    return False

def in_child(of_its_own):
    uses = [
        lambda: scorer.score(image),
        lambda: scorer.score([image]),
        lambda: next(stream),
        lambda: next(scorer.stream([image])),
        lambda: asyncio.run(scorer.score_async(image)),
        lambda: scorer.explain(image),
        lambda: scorer.__enter__(),
    ]
    wrong = [number for number, use in enumerate(uses) if not refused(use)]
    stream.close()
    scorer.close()
    if wrong:
        print("not refused:", wrong, flush=True)
    return 1 if wrong else 0

for _ in range(3):
    child = os.fork()
    if not child:
        code = in_child(False)
        # By the ordinary end of a program, with all that it has registered for that.
        sys.exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert scorer.score(image).score == expected
busy.set()
for thread in threads:
    thread.join()
assert all(scored.score == expected for scored in stream)
scorer.close()
print("fine")
"""

OWN_SCORER = """
import os, sys
import numpy as np
from pscr_engine import Scorer

image = np.full((40, 40, 3), 7, np.uint8)
with Scorer.open(sys.argv[1], device="cpu") as scorer:
    expected = scorer.score(image).score
child = os.fork()
if not child:
    with Scorer.open(sys.argv[1], device="cpu") as another:
        os._exit(0 if another.score(image).score == expected else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("fine")
"""

NOT_CLOSED = """
import sys, threading
import numpy as np
from pscr_engine import Scorer

image = np.full((40, 40, 3), 7, np.uint8)
scorer = Scorer.open(sys.argv[1], device="cpu")
assert scorer.score([image] * 10)[9].ok

def source():
    yield from [image] * 50
    threading.Event().wait()  # nothing comes any more

stream = scorer.stream(source())
assert all(next(stream).ok for _ in range(48))
print("fine")
"""


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(FORK, id="fork", marks=pytest.mark.slow),
        pytest.param(OWN_SCORER, id="own scorer"),
        pytest.param(NOT_CLOSED, id="not closed"),
    ],
)
def test_processes_end_as_they_should(tiny, program):
    process, seconds = run(program, tiny.path)
    assert process.stdout == "fine\n"
    assert process.stderr == ""
    assert seconds < 60


@pytest.mark.medium
def test_torch_is_not_imported(tiny):
    program = (
        "import sys, numpy, pscr_engine; s = pscr_engine.Scorer.open(sys.argv[1]); "
        "assert s.score(numpy.zeros((40, 40, 3), numpy.uint8)).ok; assert 'torch' not in sys.modules; print('fine')"
    )
    assert run(program, tiny.path)[0].stdout == "fine\n"


def test_a_scorer_is_not_sent_to_other_processes(tiny):
    import pickle

    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(Scorer.open(tiny.path))
