import numpy as np
import pytest
from PIL import Image
from pscr_export.exemplars import evenly_spaced, read_exemplars
from pscr_export.selection import select

from pscr_engine.errors import ExemplarError, ManifestError

from ..helpers.images import pixels


def write_list(folder, rows, name="e.csv"):
    for index in range(4):
        Image.fromarray(pixels(20, 20, index)).save(folder / f"{index}.png")
    (folder / name).write_text("path,mos\n" + "".join(f"{path},{mos}\n" for path, mos in rows))
    return folder / name


def test_paths_and_labels(tmp_path):
    images = read_exemplars(write_list(tmp_path, [("1.png", 2.5), ("0.png", "1e0")]))
    assert [(image.path, image.mos) for image in images] == [("1.png", 2.5), ("0.png", 1.0)]


def test_every_fault_is_named_in_one_error(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    path = write_list(
        tmp_path,
        [
            ("0.png", 1),
            ("gone.png", 2),
            ("text.png", 3),
            ("1.png", "nan"),
            ("2.png", "high"),
            ("3.png", ""),
            ("gone2.png", "x"),
        ],
    )
    with pytest.raises(ExemplarError) as raised:
        read_exemplars(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: 6 exemplars can't be used:")
    for expected in ("row 1, gone.png: no such file", "row 2, text.png: not an image", "row 3, 1.png: label 'nan'",
                     "row 4, 2.png: label 'high'", "row 5, 3.png: label ''", "row 6, gone2.png: label 'x'",
                     "row 6, gone2.png: no such file"):  # fmt: skip
        assert expected in message


def test_no_label_column_and_no_rows(tmp_path):
    path = write_list(tmp_path, [("0.png", 1)])
    with pytest.raises(ManifestError, match="no column 'score'"):
        read_exemplars(path, "score")
    with pytest.raises(ExemplarError, match="no exemplars in it"):
        read_exemplars(write_list(tmp_path, []))


def test_a_choice_is_spread_over_the_labels():
    labels = np.random.default_rng(0).permutation(100).astype(float).tolist()
    chosen = select(labels, 10)
    assert sorted(labels[place] for place in chosen) == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    assert chosen == sorted(chosen)
    for count in (None, 100):
        assert select(labels, count) == list(range(100))
    assert select(labels, 10, "all") == list(range(100))
    with pytest.raises(ExemplarError, match="has only 100"):
        select(labels, 101)


def test_a_random_choice_follows_from_its_seed():
    labels = [float(value) for value in range(50)]
    chosen = [select(labels, 10, "random", seed) for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert all(len(set(places)) == 10 and places == sorted(places) for places in chosen)


@pytest.mark.parametrize(("count", "limit"), [(5, 10), (10, 10), (11, 10), (1000, 64)])
def test_spread_keeps_within_its_limit(count, limit):
    chosen = evenly_spaced(range(count), limit)
    assert len(chosen) <= limit
    assert len(chosen) > min(count, limit) // 2
    assert chosen[0] == 0


@pytest.mark.parametrize(
    ("image", "reason"),
    [("s3://bucket/a.png", "is not a local file; copy it here"), ("http://host/a.png", "only with --allow-http")],
)
def test_exemplars_that_are_no_files_are_faults_with_their_reason(tmp_path, image, reason):
    (tmp_path / "exemplars.csv").write_text(f"path,mos\n{image},3\n")
    with pytest.raises(ExemplarError, match=reason):
        read_exemplars(tmp_path / "exemplars.csv")
