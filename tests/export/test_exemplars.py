import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pscr_export.exemplars import evenly_spaced, read_exemplars, read_images
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
    [("s3://bucket/a.png", "is not a local file; copy it here"), ("http://host/a.png", "only with allow_http")],
)
def test_exemplars_that_are_no_files_are_faults_with_their_reason(tmp_path, image, reason):
    (tmp_path / "exemplars.csv").write_text(f"path,mos\n{image},3\n")
    with pytest.raises(ExemplarError, match=reason):
        read_exemplars(tmp_path / "exemplars.csv")


def write_parquet(folder, **columns):
    for index in range(4):
        Image.fromarray(pixels(20, 20, index)).save(folder / f"{index}.png")
    pq.write_table(pa.table(columns), folder / "e.parquet")
    return folder / "e.parquet"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_missing_column_names_the_options_that_export_has(tmp_path, kind):
    paths = [f"{index}.png" for index in range(3)]
    path = write_parquet(tmp_path, path=paths, quality=[1.0, 2.0, 3.0])
    if kind == "csv":
        path = tmp_path / "e.csv"
        path.write_text("path,quality\n0.png,1\n")
    message = r"no column 'mos' \(columns: path, quality\); name the one of the labels with label_column$"
    with pytest.raises(ManifestError, match=message):
        read_exemplars(path)
    assert len(read_exemplars(path, "quality")) >= 1
    no_path = write_parquet(tmp_path, file=paths, mos=[1.0, 2.0, 3.0])
    with pytest.raises(ManifestError, match=r"no column 'path' .*; the column of the images must be called path$"):
        read_exemplars(no_path)


@pytest.mark.parametrize(
    ("labels", "faults"),
    [
        (pa.array([1.0, math.nan, None]), ["row 1, 1.png: label nan is not a finite", "row 2, 2.png: has no label"]),
        (pa.array([1.0, math.inf, 2.0], pa.float32()), ["row 1, 1.png: label inf is not a finite"]),
        (pa.array(["1", "high", "2"]), ["row 1, 1.png: label 'high' is not a finite"]),
        (pa.array([1, None, 3]), ["row 1, 1.png: has no label"]),
    ],
)
def test_labels_of_a_parquet_file_are_shown_as_they_are(tmp_path, labels, faults):
    path = write_parquet(tmp_path, path=[f"{index}.png" for index in range(3)], mos=labels)
    with pytest.raises(ExemplarError) as raised:
        read_exemplars(path)
    assert "pyarrow" not in str(raised.value)
    for fault in faults:
        assert fault in str(raised.value)


@pytest.mark.parametrize("labels", [pa.array([1, 2]), pa.array([Decimal("1.0"), Decimal("2.0")])])
def test_labels_of_every_numeric_type_are_read(tmp_path, labels):
    path = write_parquet(tmp_path, path=["0.png", "1.png"], mos=labels)
    assert [image.mos for image in read_exemplars(path)] == [1.0, 2.0]


def calibration(folder, good, broken):
    for index in range(good):
        Image.fromarray(pixels(20, 20, index)).save(folder / f"{index:03}.png")
    for index in range(broken):
        (folder / f"x{index}.png").write_bytes(b"\x89PNG broken")
    return folder


def test_a_broken_calibration_image_is_left_out_and_said(tmp_path, caplog):
    images = read_images(calibration(tmp_path, 9, 1))
    assert [image.path for image in images] == [f"{index:03}.png" for index in range(9)]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    said = record.getMessage()
    assert said.startswith(f"{tmp_path}: left out, 1 of 10 calibration images can't be used: row 9, x0.png: ")
    assert "\n" not in said


def test_whole_calibration_images_say_nothing(tmp_path, caplog):
    assert len(read_images(calibration(tmp_path, 3, 0))) == 3
    assert not caplog.records


def test_more_than_a_tenth_of_broken_calibration_images_are_refused(tmp_path):
    with pytest.raises(ExemplarError, match=r"2 of 19 calibration images can't be used: row 17, x0.png: ") as raised:
        read_images(calibration(tmp_path, 17, 2))
    assert "\n" not in str(raised.value)


def test_many_broken_calibration_images_are_not_all_listed(tmp_path):
    with pytest.raises(ExemplarError, match=r"8 of 8 calibration .* and 3 more; mend them") as raised:
        read_images(calibration(tmp_path, 0, 8))
    assert "x4.png" in str(raised.value)
    assert "x5.png" not in str(raised.value)
