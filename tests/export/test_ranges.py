import math
from types import SimpleNamespace

import pytest
from pscr_export.export import ExportConfig
from pscr_export.ranges import SEED, Range, check_ranges

from pscr_engine.errors import UsageError

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("allowed", "text", "inside", "outside"),
    [
        (Range(32, 1024), "from 32 to 1024", [32, 1024, 100.0], [31, 1025, NAN, INF, "64"]),
        (Range(1), "at least 1", [1, 10**9], [0, -1, INF]),
        (Range(0, above=True), "above 0", [1e-300, 5], [0, -1.0]),
        (Range(0, 1, above=True), "above 0 and at most 1", [0.1, 1], [0, 1.1]),
        (Range(0, 1, above=True, below=True), "above 0 and below 1", [0.5], [0, 1]),
        (Range(0, 1, below=True), "from 0 to below 1", [0, 0.99], [1, -0.1]),
        (SEED, "from 0 to 4294967294", [0, 2**32 - 2], [-1, 2**32 - 1]),
    ],
)
def test_what_is_in_a_range(allowed, text, inside, outside):
    assert str(allowed) == text
    assert all(value in allowed for value in inside)
    assert not any(value in allowed for value in outside)


def test_messages_name_option_value_and_range():
    check_ranges(SimpleNamespace(batch_size=None), {"batch_size": Range(1)})
    with pytest.raises(UsageError, match=r"^batch_size -3: must be at least 1, or None$"):
        check_ranges(SimpleNamespace(batch_size=-3), {"batch_size": Range(1)}, also="all")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"opset": 99}, "opset 99: must be from 18 to 23"),
        ({"opset": 17}, "opset 17: must be from 18 to 23"),
        ({"num_exemplars": 0}, "num_exemplars 0: must be at least 1, or None"),
        ({"seed": -1}, "seed -1: must be from 0 to"),
    ],
)
def test_options_of_export_are_checked_before_anything_is_read(tmp_path, settings, message):
    with pytest.raises(UsageError, match=message):
        ExportConfig(tmp_path / "nothing.pt", **settings)
