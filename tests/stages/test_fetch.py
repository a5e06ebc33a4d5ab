import os

from pscr_engine.records import Query, Status
from pscr_engine.stages.fetch import read_file


def fetched(location, **options):
    query = Query(0, location=str(location))
    read_file(query, **options)
    return query


def test_bytes_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert fetched(tmp_path / "a").data == b"abc"


def test_missing(tmp_path):
    query = fetched(tmp_path / "nothing.png")
    assert query.status == Status.MISSING
    assert "nothing.png" in query.error
    (tmp_path / "file").write_bytes(b"")
    assert fetched(tmp_path / "file" / "below").status == Status.MISSING


def test_a_directory_a_pipe_and_a_null_byte_are_unreadable(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert fetched(tmp_path).error == "is a directory"
    assert fetched(tmp_path / "pipe").error == "is not a regular file"
    for location in (tmp_path, tmp_path / "pipe", "a\0b", "x" * 5000):
        assert fetched(location).status == Status.UNREADABLE


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    query = fetched(tmp_path / "loop")
    assert query.status == Status.UNREADABLE
    assert query.error == "Too many levels of symbolic links"


def test_what_calls_itself_empty_is_not_read_for_ever():
    assert fetched("/proc/kmsg").data in (b"", None)


def test_a_file_over_the_limit_is_not_read(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 11)
    query = fetched(tmp_path / "a", max_bytes=10)
    assert query.status == Status.TOO_LARGE
    assert query.data is None


def test_what_has_failed_or_is_there_already_stays(tmp_path):
    failed = Query(0, location=str(tmp_path / "a"))
    failed.fail(Status.MISSING, "earlier")
    read_file(failed)
    assert failed.error == "earlier"
    given = Query(0, data=b"abc")
    read_file(given)
    assert given.data == b"abc"
