"""Copies of a file never stand on two sides of a split."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from pscr_training.data.duplicates import separate_duplicates
from pscr_training.data.labelled import Item
from pscr_training.data.splits import Split


@settings(deadline=None)
@given(
    contents=st.lists(st.tuples(st.sampled_from(["train", "val", "test"]), st.integers(0, 5)), max_size=20),
)
def test_no_copy_is_on_two_sides_and_the_test_images_stay(tmp_path_factory, contents):
    folder = tmp_path_factory.mktemp("copies")
    parts: dict[str, list[Item]] = {"train": [], "val": [], "test": []}
    for row, (part, content) in enumerate(contents):
        file = folder / str(row)
        # The same size and other bytes, too: a size alone makes no copy.
        file.write_bytes(b"%d" % content if content < 4 else b"longer %d" % content)
        parts[part].append(Item(row, file.name, Path(file), 1.0))
    split, left_out = separate_duplicates(Split(**parts))
    kinds = {name: {item.file.read_bytes() for item in getattr(split, name)} for name in parts}
    assert not kinds["train"] & kinds["val"]
    assert not (kinds["train"] | kinds["val"]) & kinds["test"]
    assert split.test == parts["test"]
    kept = [*split.train, *split.val, *split.test]
    assert sorted(item.row for item in (*kept, *left_out)) == list(range(len(contents)))
    # Nothing is left out without a reason.
    for item in left_out:
        assert item.file.read_bytes() in kinds["test"] | kinds["val"]
