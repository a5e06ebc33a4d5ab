import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pscr_engine.errors import WorkerError
from pscr_engine.runners.ledger import ChunkDone, Ledger


def rows_in(chunk, total):
    return max(0, min(chunk.rows.stop, total) - chunk.rows.start)


def finish(ledger, chunk, total):
    ledger.done(ChunkDone(chunk.index, rows_in(chunk, total), Counter()))


@given(
    total=st.integers(0, 60),
    chunk_rows=st.integers(1, 9),
    known=st.sampled_from(["exactly", "at most", "no"]),
    seed=st.integers(0, 2**32),
)
def test_every_row_is_scored_once_whoever_dies(total, chunk_rows, known, seed):
    """Let workers take, finish and die in any order: every chunk with rows is finished exactly once."""
    dice = random.Random(seed)  # thousands of choices: too many to be drawn one by one
    end = {"exactly": total, "at most": total + dice.randrange(21), "no": None}[known]
    chunks = -(-total // chunk_rows)
    parts = {index for index in range(chunks) if dice.random() < 0.3}
    ledger = Ledger(chunk_rows, frozenset(parts), end=end, strikes=10**9)
    if parts:
        ledger.count_parts(min(total, (max(parts) + 1) * chunk_rows) - max(parts) * chunk_rows)
    finished, workers = [], [[], [], []]
    while not ledger.finished:
        at = workers[dice.randrange(3)]
        action = dice.choice(["take", "take", "finish", "finish", "die", "drop out", "leave"])
        if action == "take" and len(at) < 2:
            chunk = ledger.take(idle=not at)
            if chunk is not None:
                assert not chunk.suspect or not at
                at.append(chunk)
        elif action == "finish" and at:
            chunk = at.pop(0)
            finish(ledger, chunk, total)
            if rows_in(chunk, total):
                finished.append(chunk.index)
        elif action == "die":
            ledger.worker_died([chunk.index for chunk in at])
            at.clear()
        elif action == "drop out":
            ledger.device_lost([chunk.index for chunk in at], "cuda:0")
            at.clear()
        elif action == "leave":
            ledger.give_back([chunk.index for chunk in at])
            at.clear()
    assert sorted([*finished, *parts]) == list(range(chunks))
    assert ledger.rows == total


def test_a_chunk_that_kills_two_workers_is_named():
    ledger = Ledger(10, end=100)
    first, second = ledger.take(), ledger.take()
    ledger.worker_died([first.index, second.index])
    assert ledger.take(idle=False) is None  # whoever gets a suspect gets nothing else
    suspect = ledger.take()
    assert suspect.suspect
    assert suspect.index == 0
    finish(ledger, suspect, 100)
    other = ledger.take()
    assert (other.index, other.suspect) == (1, True)
    with pytest.raises(WorkerError, match=r"rows 10 to 19 \(chunk 1\) have killed a worker 2 times"):
        ledger.worker_died([other.index])


def test_chunks_of_a_device_that_has_dropped_out_go_to_others_one_by_one():
    ledger = Ledger(10, end=100)
    first, second, third = ledger.take(), ledger.take(), ledger.take()
    ledger.device_lost([second.index, first.index], "cuda:0")
    assert ledger.take(idle=False) is None
    again = ledger.take()
    assert (again.index, again.suspect) == (0, True)
    ledger.device_lost([again.index], "cuda:0")  # the same card again: it is the card
    again = ledger.take()
    with pytest.raises(WorkerError, match=r"rows 0 to 9 \(chunk 0\) have taken down cuda:0 and cuda:1: find the image"):
        ledger.device_lost([again.index], "cuda:1")
    assert third.index == 2


def test_only_failed_rows_of_a_part_are_asked_for():
    mask = np.array([False, True])
    ledger = Ledger(2, frozenset({0, 1, 2}), {1: mask}, 6)
    chunk = ledger.take()
    assert (chunk.index, list(chunk.rows)) == (1, [2, 3])
    assert chunk.again is mask
    ledger.done(ChunkDone(1, 2, Counter()))
    assert ledger.take() is None
    assert ledger.finished
