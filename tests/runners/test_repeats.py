import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pscr_engine.records import Query, RunStats, Status
from pscr_engine.runners.repeats import Repeats


def finish(query):
    """Stand for the stages: what they make of an image depends on its bytes, but for the last bits."""
    if query.ok:
        if query.data == b"broken":
            query.fail(Status.UNDECODABLE, "broken")
        else:
            query.score, query.width = float(query.data[0]) + query.row / 1e6, 7
            query.features = np.full((2, 3), query.data[0], np.float32)[0]
            query.data = None


@given(st.lists(st.sampled_from([b"a", b"b", b"c", b"broken"]), max_size=60), st.integers(0, 5), st.integers(1, 20))
def test_equal_bytes_have_equal_results_whatever_is_forgotten(contents, room, together):
    """Score micro-batches of `together` images, which are under way at once."""
    stats = RunStats()
    repeats = Repeats(stats, most_bytes=room * 700)
    done = []
    for start in range(0, len(contents), together):
        batch = [Query(row, data=contents[row]) for row in range(start, min(start + together, len(contents)))]
        repeats.look(batch)
        for query in batch:
            finish(query)
        repeats.note(batch)
        done += batch
    assert len(repeats) <= room
    for query, content in zip(done, contents, strict=True):
        assert query.data is None
        if content == b"broken":
            assert (query.status, query.error, query.score) == (Status.UNDECODABLE, "broken", None)
        else:
            assert query.status is Status.OK
            assert abs(query.score - content[0]) < 1e-3
            assert query.features.tolist() == [content[0]] * 3
    assert stats.repeated.items == sum(query.repeated for query in done)
    if room >= 4:
        assert len({(query.score, query.error) for query in done}) == len(set(contents))


def test_what_another_try_may_read_is_not_remembered():
    repeats = Repeats(RunStats())
    first, second = Query(0, data=b"a"), Query(1, data=b"a")
    repeats.look([first])
    first.fail(Status.UNREADABLE, "no answer")
    repeats.note([first])
    repeats.look([second])
    assert second.ok
    assert len(repeats) == 0
