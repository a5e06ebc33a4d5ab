import csv

import numpy as np
import pytest
from PIL import Image

from pscr_engine.synthetic import make_image, write_images


def test_a_folder_of_images_and_the_list_that_names_them(tmp_path):
    done = []
    listed = write_images(tmp_path / "images", "list.csv", 5, seed=3, made=done.append)
    assert listed == tmp_path / "images" / "list.csv"
    assert done == [1, 2, 3, 4, 5]
    with listed.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["0000.jpg", "0001.jpg", "0002.jpg", "0003.png", "0004.jpg"]
    expected = [make_image(index, seed=3) for index in range(5)]
    assert [float(row["mos"]) for row in rows] == [image.mos for image in expected]
    assert np.array_equal(Image.open(listed.parent / "0003.png"), expected[3].image)


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    with pytest.raises(FileExistsError):
        write_images(tmp_path, "list.csv", 1, seed=0)
