"""Which batch size is the knee."""

import pytest

from pscr_engine.cuda.batch_size import knee


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({16: 100.0}, 16),
        ({16: 100.0, 32: 150.0, 64: 154.0, 128: 153.0}, 32),
        ({16: 100.0, 32: 150.0, 64: 156.0, 128: 157.0}, 64),
        ({16: 100.0, 32: 99.0}, 16),
        ({16: 50.0, 32: 100.0, 64: 200.0}, 64),
    ],
)
def test_the_smallest_that_is_nearly_as_fast_as_the_best(rates, expected):
    assert knee(rates) == expected
