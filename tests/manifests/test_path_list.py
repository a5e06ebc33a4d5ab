import shutil

import pytest

from pscr_engine.errors import ManifestError
from pscr_engine.manifests import ManifestOptions, open_manifest
from pscr_engine.records import Status
from pscr_engine.selection.rule import Rule, Top
from pscr_engine.selection.select import select

from ..helpers.images import encoded, pixels
from ..helpers.runs import make_run


def listed(tmp_path, content, options=None):
    (tmp_path / "list.txt").write_bytes(content)
    return open_manifest(tmp_path / "list.txt", options)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_one_path_per_line_as_it_is_written(tmp_path, end):
    lines = [b"a.png", b"b c.png", b"", b'"d".png', b"# e.png", b"/f/g.png", b"s3://bucket/h.png", b"\xff.png"]
    manifest = listed(tmp_path, b"\xef\xbb\xbf" + end.join(lines))
    queries = list(manifest.rows())
    assert [query.path for query in queries] == [
        "a.png",
        "b c.png",
        '"d".png',
        "# e.png",
        "/f/g.png",
        "s3://bucket/h.png",
        "\udcff.png",
    ]
    assert [query.row for query in queries] == list(range(7))
    assert queries[0].location == str(tmp_path / "a.png")
    assert (queries[4].location, queries[5].uri) == ("/f/g.png", "s3://bucket/h.png")
    assert [query.path for query in manifest.rows(5)] == ["s3://bucket/h.png", "\udcff.png"]
    assert manifest.num_rows >= 7
    assert not manifest.has_columns


def test_another_list_is_another_manifest_and_a_changed_one_is_noticed(tmp_path):
    manifest = listed(tmp_path, b"a.png\n")
    before = manifest.fingerprint
    assert before.startswith("paths:")
    assert listed(tmp_path, b"b.png\n").fingerprint != before
    with pytest.raises(ManifestError, match="has changed since the run began"):
        manifest.check_unchanged()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty; write one path per line"),
        (b"\n \n", "empty; write one path per line"),
        (b"path\na.png\n", r"its first line, 'path', reads like the header of a table; call it \.csv, or"),
        (b'"id","path"\n1,a.png\n', r"reads like the header of a table; call it \.csv"),
        (b"mos\timage\n", r"reads like the header of a table; call it \.tsv"),
        ("a.png\n".encode("utf-16"), "is UTF-16; text in UTF-8 is read"),
    ],
)
def test_what_is_no_list_of_paths_is_refused(tmp_path, content, message):
    with pytest.raises(ManifestError, match=message):
        listed(tmp_path, content)


def test_its_options(tmp_path):
    (tmp_path / "images").mkdir()
    root = str(tmp_path / "images")
    inside, outside = listed(tmp_path, b"a.png\n../b.png\n", ManifestOptions(root=root)).rows()
    assert inside.location == f"{root}/a.png"
    assert (outside.status, outside.error) == (Status.UNREADABLE, f"the path leaves the root {root}")
    with pytest.raises(ManifestError, match="path_column is for manifests with columns"):
        listed(tmp_path, b"a.png\n", ManifestOptions("file"))


def test_captions_beside_images_are_no_lists(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(pixels(40, 40)))
    (tmp_path / "a.txt").write_text("a cat\n")
    assert open_manifest(tmp_path).num_rows == 1
    assert open_manifest(f"{tmp_path}/*").num_rows == 2  # a glob takes what it matches: the text is a row


def test_a_single_image_is_a_list_of_one(tmp_path):
    (tmp_path / "a.PNG").write_bytes(encoded(pixels(40, 40)))
    (query,) = open_manifest(tmp_path / "a.PNG").rows()
    assert query.path == query.location == str(tmp_path / "a.PNG")
    with pytest.raises(ManifestError, match="root is for manifests with columns, this is a list of files"):
        open_manifest(tmp_path / "a.PNG", ManifestOptions(root="x"))


def test_runs_over_lists_and_single_images_can_be_selected_from_and_reported(tmp_path, cli):
    from ..helpers.tiny import make_bundle

    make_bundle(tmp_path / "model.pscr")
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(encoded(pixels(40, 40)))
    (tmp_path / "list.txt").write_text("a.png\nb.png\ngone.png\n")
    scored = cli("score", "list.txt")
    assert scored.returncode == 0, scored.stderr
    assert scored.stdout.startswith("3 rows: 2 ok, 1 missing")
    assert "next:" not in scored.stdout  # nobody is there to read it
    assert cli("score", "list.txt").stderr.count("is complete already") == 1
    chosen = cli("select", "--top", "1", "-o", "kept.csv")
    assert chosen.returncode == 0, chosen.stderr
    assert (tmp_path / "kept.csv").read_text().startswith('"path","score","score_std","row"\n"a.png",')
    reported = cli("report", "-m", "list.txt")
    assert reported.returncode == 0, reported.stderr
    assert (tmp_path / "report.html").read_text().count("data:image/jpeg") >= 2
    shutil.rmtree(tmp_path / "scores")
    one = cli("score", "a.png", "-b", "model.pscr", "-o", "one")
    assert (one.returncode, one.stdout.startswith("1 rows: 1 ok")) == (0, True)
    assert "data:image/jpeg" in (cli("report", "one", "-o", "one.html") and (tmp_path / "one.html").read_text())


def test_a_run_made_without_scoring_reads_the_same(tmp_path):
    (tmp_path / "list.txt").write_text("a.png\nb.png\n")
    run = make_run(tmp_path / "scores", tmp_path / "list.txt", [1.0, 2.0])
    assert select(run, Rule(Top(number=1)), tmp_path / "kept.parquet").columns == ["path", "score", "score_std", "row"]
