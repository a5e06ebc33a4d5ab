import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pscr_training.data.open import Source
from pscr_training.data.splits import split
from pscr_training.data.table import table

from pscr_engine.errors import DatasetError, UsageError

from ..made import labelled_table


def test_columns_of_a_table(tmp_path):
    file = labelled_table(tmp_path)
    found = table(file, part_column="part")
    found.check_files()
    assert (len(found.items), found.label) == (24, "mos")
    assert found.items[4].prompt == "prompt 1"
    parts = split(found, "column")
    assert [len(part) for part in parts] == [15, 4, 5]
    assert [len(part) for part in split(found, "prompt-disjoint", val_share=0)] == [18, 0, 6]
    with pytest.raises(DatasetError, match="the paper splits only its own databases"):
        split(found, "paper")
    with pytest.raises(DatasetError, match="name it with split_column"):
        split(table(file), "column")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_kinds(tmp_path, kind):
    file = tmp_path / f"t.{kind}"
    columns = {"path": ["a b.png", "007"], "quality": [1.5, 2]}
    match kind:
        case "parquet":
            pq.write_table(pa.table(columns), file)
        case "jsonl":
            file.write_text('{"path": "a b.png", "quality": 1.5}\n{"path": "007", "quality": 2}\n')
        case _:
            between = "," if kind == "csv" else "\t"
            file.write_text(f"path{between}quality\na b.png{between}1.5\n007{between}2\n")
    found = Source(str(file), str(tmp_path / "images"), "quality").open()
    assert [(item.name, item.mos, item.file) for item in found.items] == [
        ("a b.png", 1.5, tmp_path / "images" / "a b.png"),
        ("007", 2.0, tmp_path / "images" / "007"),
    ]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_the_column_of_images_may_have_any_name(tmp_path, kind):
    """Check names like numbers, too, and that a column path beside it is not taken instead."""
    file = tmp_path / f"t.{kind}"
    if kind == "csv":
        file.write_text("image,mos,path\n007,1.5,x\n")
    else:
        file.write_text('{"image": "007", "mos": 1.5, "path": "x"}\n')
    (item,) = Source(str(file), path_column="image").open().items
    assert (item.name, item.file, item.mos) == ("007", tmp_path / "007", 1.5)
    with pytest.raises(DatasetError, match=r"no column img \(.*\); name the images' with path_column"):
        Source(str(file), path_column="img").open()


@pytest.mark.parametrize("column", ["path_column", "split_column"])
@pytest.mark.parametrize("dataset", ["synthetic", "agiqa-3k"])
def test_columns_are_for_tables(tmp_path, dataset, column):
    with pytest.raises(UsageError, match=f"{column} x: is for tables, and {dataset} is none; leave it out"):
        Source(dataset, str(tmp_path), **{column: "x"}).open()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "can't be read"),
        ("path,mos\n", "no rows in it"),
        ("path,score\na,1\n", r"no column mos \(there is path, score\); name the labels' with label$"),
        (
            "file,score\na,1\n",
            r"no column path, mos \(.*\); name the images' with path_column, name the labels' with label$",
        ),
        (
            "path,mos\na,x\nb,1\n,2\n",
            "2 rows can't be used: row 0, a: label 'x' is not a finite number; row 2: path ''",
        ),
        ("path,mos,part\na,1,train\nb,2,exam\n", "row 1, b: part is 'exam', not train, test or val"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        table(tmp_path / "t.csv", part_column="part" if "part" in text else None)


def test_a_column_of_parts_that_is_not_there_is_named(tmp_path):
    (tmp_path / "t.csv").write_text("path,mos\na,1\n")
    with pytest.raises(
        DatasetError, match=r"no column part \(there is path, mos\); name the parts' with split_column$"
    ):
        table(tmp_path / "t.csv", part_column="part")


def test_values_that_python_cannot_hold_are_named_with_their_column(tmp_path):
    prompts = pa.array([b"\xff"], pa.binary()).cast(pa.string(), safe=False)
    for name, values in (("prompt", prompts), ("mos", pa.array([2**50], pa.timestamp("ms")))):
        columns = {"path": ["a.png"], "mos": [1.0], name: values}
        pq.write_table(pa.table(columns), tmp_path / "t.parquet")
        with pytest.raises(DatasetError, match=f"column '{name}' holds .* that can't be read"):
            table(tmp_path / "t.parquet")


def test_made_up_images_are_made_once(tmp_path):
    source = Source("synthetic", str(tmp_path / "made"), images=4)
    first = source.open()
    first.check_files()
    stamps = [item.file.stat().st_mtime_ns for item in first.items]
    again = source.open()
    assert again == first
    assert [item.file.stat().st_mtime_ns for item in again.items] == stamps
    with pytest.raises(DatasetError, match="holds other images than 5 made-up ones of seed 1"):
        Source("synthetic", str(tmp_path / "made"), images=5).open()
