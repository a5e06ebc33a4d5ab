import hashlib
import os

import numpy as np
import pytest

from pscr_engine.explain import NearExemplar
from pscr_engine.explain.exemplar_images import thumbnail

from ..helpers.images import bomb, encoded, pixels


def exemplar(path, content):
    return NearExemplar(0, str(path), hashlib.sha256(content).hexdigest(), 3.0, 1.0, 0.5)


def test_the_file_is_found_as_it_is_or_from_the_folder(tmp_path, monkeypatch):
    content = encoded(pixels(300, 600))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    for path, root in (("sub/a.png", None), ("a.png", tmp_path / "sub"), (tmp_path / "sub" / "a.png", tmp_path)):
        found = thumbnail(exemplar(path, content), root)
        assert found.size == (256, 128)
    assert np.abs(np.asarray(found).mean((0, 1)) - pixels(300, 600).mean((0, 1))).max() < 2
    assert thumbnail(exemplar("a.png", content), None) == "image not found"


def test_another_file_is_never_shown(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(pixels(30, 60)))
    assert thumbnail(exemplar("a.png", b"the one that was exported"), tmp_path) == "another file is there"


@pytest.mark.parametrize("content", [b"text", bomb()])
def test_what_is_no_image_is_said(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    assert thumbnail(exemplar("a.png", content), tmp_path) == "image can't be decoded"


def test_nothing_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert thumbnail(exemplar("a.png", b""), tmp_path) == "image can't be read"
    assert thumbnail(exemplar("nu\0ll.png", b""), tmp_path) == "image can't be read"
