import os
import signal
import subprocess
import sys

import pytest

from pscr_engine.atomic import atomic_directory, atomic_file


def test_a_file_is_old_or_new(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_directory_is_old_or_new(tmp_path):
    path = tmp_path / "d"
    with atomic_directory(path) as folder:
        (folder / "x").write_text("1")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), atomic_directory(path) as folder:
        (folder / "x").write_text("2")
        raise KeyboardInterrupt
    assert (path / "x").read_text() == "1"
    with atomic_directory(path) as folder:
        (folder / "y").write_text("3")
    assert [file.name for file in path.iterdir()] == ["y"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["d"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    code = (
        "import os, signal, pathlib\n"
        "from pscr_engine.atomic import atomic_directory\n"
        f"with atomic_directory(pathlib.Path({str(tmp_path / 'd')!r})) as folder:\n"
        "    (folder / 'x').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    left = [entry.name for entry in tmp_path.iterdir()]
    assert len(left) == 1
    assert left[0].startswith(".d.partial-")
    with atomic_directory(tmp_path / "d") as folder:
        (folder / "x").write_text("whole")
    assert [entry.name for entry in tmp_path.iterdir()] == ["d"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    old = tmp_path / f".d.replaced-{dead.pid}"
    old.mkdir()
    (old / "x").write_text("old")
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "d"):
        raise RuntimeError
    assert (tmp_path / "d" / "x").read_text() == "old"
    assert os.listdir(tmp_path) == ["d"]
