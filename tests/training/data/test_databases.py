"""The readers, on the databases' real label files where they may be copied, else on files of the same form."""

import shutil
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from pscr_training.data.agiqa import agiqa_1k, agiqa_3k
from pscr_training.data.aigciqa import aigciqa2023
from pscr_training.data.open import Source
from pscr_training.data.splits import leakage, split
from scipy.io import savemat

from pscr_engine.errors import DatasetError, UsageError

REAL = Path(__file__).parents[2] / "annotations"


def test_agiqa_1k():
    found = agiqa_1k(REAL / "agiqa-1k")
    assert (found.rows, len(found.items), found.paper_every) == (1080, 1078, 4)
    assert found.items[0].name == "deepai_0_0_0_0.jpg"
    labels = np.array([item.mos for item in found.items])
    assert labels.min() == 0
    assert labels.max() == 5
    assert labels.mean() == pytest.approx(2.5009, abs=3e-3)  # of all 1080 rows
    assert len({item.prompt for item in found.items}) == 720
    assert list(found.notes) == ["left out dreamStudio_8_9_1_1.jpg: it is listed with labels 0.441416, 2.08412"]


@pytest.mark.parametrize(
    ("label", "low", "high", "mean"),
    [("quality", 0, 4.488741, 2.500417), ("alignment", 0.021462, 4.286204, 2.5)],
)
def test_agiqa_3k(label, low, high, mean):
    found = agiqa_3k(REAL / "agiqa-3k", label)
    labels = np.array([item.mos for item in found.items])
    assert (found.rows, len(found.items), found.paper_every) == (2982, 2982, 5)
    assert (labels.min(), labels.max()) == pytest.approx((low, high), abs=1e-6)
    assert labels.mean() == pytest.approx(mean, abs=1e-6)
    assert len({item.prompt for item in found.items}) == 300


@pytest.mark.parametrize(
    ("database", "rule", "train", "test", "leaked"),
    [
        (agiqa_1k, "paper", 809, 269, 0.030),
        (agiqa_1k, "random", 862, 216, 0.509),
        (agiqa_1k, "prompt-disjoint", 857, 221, 0.0),
        (agiqa_3k, "paper", 2386, 596, 1.0),
        (agiqa_3k, "random", 2385, 597, 1.0),
        (agiqa_3k, "prompt-disjoint", 2382, 600, 0.0),
    ],
)
def test_splits_and_how_many_test_prompts_are_trained_on(database, rule, train, test, leaked):
    """Compare with what is published: 51% of AGIQA-1K's random test, about 4% of the paper's, all of AGIQA-3K's."""
    found = database(REAL / database.__name__.replace("_", "-"))
    parts = split(found, rule, val_share=0)
    assert (len(parts.train), len(parts.val), len(parts.test)) == (train, 0, test)
    assert leakage(parts.train, parts.test) == pytest.approx(leaked, abs=1e-3)


def test_in_prompts_instead_of_images_the_papers_split_leaks_4_percent():
    parts = split(agiqa_1k(REAL / "agiqa-1k"), "paper", val_share=0)
    tested, trained = ({item.prompt for item in part} for part in (parts.test, parts.train))
    assert round(len(tested & trained) / len(tested), 2) == 0.04


@pytest.mark.parametrize("folder", ["image", "img", "images", "."])
def test_image_folders_go_by_several_names(tmp_path, folder):
    shutil.copy(REAL / "agiqa-3k" / "data.csv", tmp_path)
    first = agiqa_3k(REAL / "agiqa-3k").items[0].name
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / first).touch()
    found = agiqa_3k(tmp_path)
    assert found.items[0].file == tmp_path / folder / first
    with pytest.raises(DatasetError, match=r"agiqa-3k: 2981 of 2982 images are missing, .* and 2976 more"):
        found.check_files()


def aigciqa(folder, values, kind):
    (folder / "DATA" / "MOS").mkdir(parents=True)
    if kind == "mat":
        savemat(folder / "DATA" / "MOS" / "mosz2.mat", {"MOSz": np.array(values)[:, None]})
    else:
        (folder / "moz2.txt").write_text("\n".join(f"{value:.4f}" for value in values) + "\n")


@pytest.mark.parametrize("kind", ["mat", "txt"])
def test_aigciqa2023(tmp_path, kind):
    values = np.random.default_rng(0).uniform(20, 80, 2400).round(4)
    aigciqa(tmp_path, values, kind)
    found = aigciqa2023(tmp_path, "authenticity")
    assert [item.mos for item in found.items] == pytest.approx(values.tolist(), abs=1e-4)
    assert found.label_range == (0, 100)
    item = found.items[400 * 3 + 4 * 17 + 2]
    assert (item.name, item.prompt) == ("1270.png", "17")
    assert item.file == tmp_path / "Image" / "allimg" / "1270.png"
    for rule, test in (("paper", 600), ("random", 480)):
        parts = split(found, rule, val_share=0)
        assert (len(parts.test), leakage(parts.train, parts.test)) == (test, 1.0)
    parts = split(found, "prompt-disjoint")
    assert [len(part) for part in parts] == [72 * 24, 8 * 24, 20 * 24]


def test_the_random_split_is_the_authors_own():
    """Shuffle as their loaders do: lists of images and labels, by NumPy's global generator, seeded with 1."""
    found = agiqa_3k(REAL / "agiqa-3k")
    names = [item.name for item in found.items]
    np.random.seed(1)
    np.random.shuffle(names)
    parts = split(found, "random", val_share=0)
    assert {item.name for item in parts.train} == set(names[: int(2982 * 0.8)])


def test_parts_do_not_overlap_and_validation_comes_from_training():
    found = agiqa_1k(REAL / "agiqa-1k")
    for rule in ("paper", "random", "prompt-disjoint"):
        whole, parts = split(found, rule, val_share=0, seed=3), split(found, rule, seed=3)
        rows = [{item.row for item in part} for part in parts]
        assert rows[0] | rows[1] == {item.row for item in whole.train}
        assert rows[2] == {item.row for item in whole.test}
        assert not rows[0] & rows[1]
        assert abs(len(rows[1]) - 0.1 * len(whole.train)) < 0.02 * len(whole.train)
        assert split(found, rule, seed=3) == parts


def spreadsheet(path, rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)


@pytest.mark.parametrize(
    ("make", "read", "message"),
    [
        (lambda f: None, agiqa_1k, "AIGC_MOS_Zscore.xlsx: no such file; it should hold the labels of AGIQA-1K"),
        (lambda f: (f / "AIGC_MOS_Zscore.xlsx").write_text("x"), agiqa_1k, "not a spreadsheet"),
        (lambda f: spreadsheet(f / "AIGC_MOS_Zscore.xlsx", [["Image", "MOS"]]), agiqa_1k, "name Image, Prompt and MOS"),
        (
            lambda f: spreadsheet(f / "AIGC_MOS_Zscore.xlsx", [["Image", "Prompt", "MOS"], ["a.jpg", "p", "high"]]),
            agiqa_1k,
            "1 rows can't be used: row 2, a.jpg: label 'high' is not a finite number",
        ),
        (lambda f: None, agiqa_3k, "data.csv: no such file"),
        (lambda f: (f / "data.csv").write_text("name,mos\n"), agiqa_3k, "no column mos_quality, prompt"),
        (
            lambda f: (f / "data.csv").write_text("name,prompt,mos_quality\na.jpg,p,nan\n"),
            agiqa_3k,
            "line 2, a.jpg: label 'nan'",
        ),
        (lambda f: None, aigciqa2023, r"no DATA/MOS/mosz1.mat and no moz1.txt"),
        (lambda f: (f / "moz1.txt").write_text("1 2 3"), aigciqa2023, "3 labels, not 2400"),
        (lambda f: (f / "mosz1.mat").write_text("x"), aigciqa2023, "not a MATLAB file"),
        (lambda f: savemat(f / "mosz1.mat", {"MOS": [1]}), aigciqa2023, r"no variable MOSz in it \(MOS\)"),
    ],
)  # fmt: skip
def test_what_is_missing_or_malformed_is_named(tmp_path, make, read, message):
    make(tmp_path)
    with pytest.raises(DatasetError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source("agiqa-3k"), "name its folder with root"),
        (Source("agiqa"), "choose from agiqa-1k, agiqa-3k, aigciqa2023, synthetic, or name a table's file"),
    ],
)
def test_datasets_that_are_not_there(source, message):
    with pytest.raises(UsageError, match=message):
        source.open()


def test_an_unknown_label_names_those_there_are(tmp_path):
    for name, labels in (
        ("agiqa-1k", "quality"),
        ("agiqa-3k", "quality and alignment"),
        ("aigciqa2023", "quality, auth"),
    ):
        with pytest.raises(DatasetError, match=f"{name} has the labels? {labels}"):
            Source(name, str(tmp_path), "beauty").open()
