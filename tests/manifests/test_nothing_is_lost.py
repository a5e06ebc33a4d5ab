"""What is malformed or ambiguous is a row with a reason or an error, and never fewer rows than other readers see."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile

import pandas
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pscr_engine.errors import ManifestError
from pscr_engine.manifests import ManifestOptions, open_manifest


def rows_of(path, options=None):
    return list(open_manifest(path, options).rows())


def statuses(path):
    return [query.status.value for query in rows_of(path)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('path,p\na.jpg,x\nb.jpg,"12 in\nc.jpg,y\n', 3),
        ('path,p\na.jpg,x\nb.jpg,"12 in\nc.jpg,"13 in\n', 3),
        ('path,p\n"a\n.jpg",x\n"b.jpg,x\n', 4),
        ('path,p\na.jpg,"x"y\n', 2),
        ('"path,p\na.jpg,x\n', 1),
    ],
)
def test_a_quote_that_is_not_closed_is_an_error_with_its_line(tmp_path, text, line):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ManifestError, match=f"m.csv: line {line}: "):
        rows_of(tmp_path / "m.csv")


def test_records_with_too_many_or_too_few_fields_are_rows_with_a_reason(tmp_path):
    (tmp_path / "m.csv").write_text("id,path\n1,a.jpg\n2,b,c.jpg\n3\n\n4,d.jpg\n")
    queries = rows_of(tmp_path / "m.csv")
    assert [(query.id, query.status.value) for query in queries] == [
        ("1", "ok"), ("2", "unreadable"), ("3", "unreadable"), ("4", "ok"),
    ]  # fmt: skip
    assert queries[1].error == "line 3 of the manifest has 3 fields, its header has 2"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_no_line_end_loses_rows(tmp_path, end, last):
    (tmp_path / "m.csv").write_bytes((end.join(["path", "a", "b", "c"]) + end * last).encode())
    manifest = open_manifest(tmp_path / "m.csv")
    assert [query.path for query in manifest.rows()] == ["a", "b", "c"]
    assert manifest.num_rows == 3


def test_other_white_space_is_no_line_end(tmp_path):
    names = ["a\x0bb", "c\x0cd", "e\x85f", "g\u2028h", "i\x1cj"]
    (tmp_path / "m.csv").write_text("path\n" + "\n".join(names) + "\n", encoding="utf-8")
    (tmp_path / "m.jsonl").write_text(
        "".join(json.dumps({"path": name}, ensure_ascii=False) + "\n" for name in names), encoding="utf-8"
    )
    assert [query.path for query in rows_of(tmp_path / "m.csv")] == names
    assert [query.path for query in rows_of(tmp_path / "m.jsonl")] == names


def test_a_carriage_return_within_a_json_line_is_white_space(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(b'{"path": "a",\r "id": 1}\n{"path": "b"}\r\n{"path": "c"}\r')
    manifest = open_manifest(tmp_path / "m.jsonl")
    assert [query.path for query in manifest.rows()] == ["a", "b", "c"]
    assert manifest.num_rows == 3
    (tmp_path / "m.jsonl").write_bytes(b'{"path": "a"}\r{"path": "b"}\r')
    with pytest.raises(ManifestError, match="no line of it is a JSON object"):
        rows_of(tmp_path / "m.jsonl")


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("path, id", "' id'"),
        ("\ufeffpath,id", None),
        ("\ufeff\ufeffpath,id", r"'\\ufeffpath'"),
        ("path\u200b,id", "u200b"),
    ],
)
def test_a_column_that_only_looks_like_the_one_is_named(tmp_path, header, name):
    (tmp_path / "m.csv").write_text(f"{header}\na.jpg,1\n", encoding="utf-8")
    if name is None:
        assert [query.id for query in rows_of(tmp_path / "m.csv")] == ["1"]
        return
    with pytest.raises(ManifestError, match=f"{name}.* is not quite"):
        rows_of(tmp_path / "m.csv")


def test_a_column_with_a_space_can_be_chosen(tmp_path):
    (tmp_path / "m.csv").write_text("path , id\na.jpg,1\n")
    (query,) = rows_of(tmp_path / "m.csv", ManifestOptions(path_column="path ", id_column=" id"))
    assert (query.path, query.id) == ("a.jpg", "1")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("path\na.jpg\n".encode("utf-16"), "UTF-16"),
        ("path\na.jpg\n".encode("utf-16-le"), "null bytes"),
        (gzip.compress(b"path\na.jpg\n", mtime=0), "gzip"),
        (b"PK\x03\x04rest", "zip archive"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_what_is_no_utf8_text_is_said(tmp_path, content, what, suffix):
    (tmp_path / f"m.{suffix}").write_bytes(content)
    with pytest.raises(ManifestError, match=f"is .*{what}.*; text in UTF-8 is read") as raised:
        rows_of(tmp_path / f"m.{suffix}")
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_two_columns_of_one_name_are_refused(tmp_path, name):
    (tmp_path / "m.csv").write_text("path,path\na.jpg,b.jpg\n")
    (tmp_path / "m.jsonl").write_text('{"path": "a.jpg"}\n')
    if name == "m.csv":
        with pytest.raises(ManifestError, match="several columns named 'path'"):
            rows_of(tmp_path / name)


def test_ids_that_only_later_lines_have_are_kept(tmp_path):
    lines = [
        {"path": "a"},
        {"path": "b", "id": 2},
        *({"path": str(row)} for row in range(1200)),
        {"path": "z", "id": "x"},
    ]
    for listed in (lines, [*lines[:1], *lines[2:]]):
        (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in listed))
        ids = [query.id for query in rows_of(tmp_path / "m.jsonl")]
        assert ids == [None if "id" not in line else str(line["id"]) for line in listed]
    (tmp_path / "m.jsonl").write_text('{"path": "a", "meta": {"id": 5}}\n')
    assert open_manifest(tmp_path / "m.jsonl").id_type is None
    late = [{"other": 1}] * 1100 + [{"picture": "p.jpg"}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in late))
    assert rows_of(tmp_path / "m.jsonl", ManifestOptions(path_column="picture"))[-1].path == "p.jpg"


def tar_of(names, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 700
            tar.addfile(member, io.BytesIO(name.encode().ljust(700, b".")))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["cat", "gzip members", "gzip of cat", "zero block", "more zeros"])
def test_archives_one_after_the_other_are_all_read(tmp_path, kind):
    first, second = tar_of(["1.jpg", "2.jpg"]), tar_of(["3.jpg"])
    content = {
        "cat": first + second,
        "gzip members": gzip.compress(first) + gzip.compress(second),
        "gzip of cat": gzip.compress(first + second),
        "zero block": first[:3072] + bytes(512) + second,
        "more zeros": first + bytes(5 * 2**20) + second,
    }[kind]
    path = tmp_path / ("a.tar.gz" if "gzip" in kind else "a.tar")
    path.write_bytes(content)
    queries = rows_of(path)
    assert [query.id for query in queries] == ["1", "2", "3"]
    if kind != "zero block":
        assert [query.data[:5] for query in queries] == [b"1.jpg", b"2.jpg", b"3.jpg"]
    assert [query.row for query in open_manifest(path).rows(2)] == [2]


def test_what_follows_an_archive_and_is_none_is_a_row(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of(["1.jpg"]) + b"no archive".ljust(512))
    queries = rows_of(tmp_path / "a.tar")
    assert [query.status.value for query in queries] == ["ok", "unreadable"]
    assert "what follows its end mark is no archive" in queries[1].error


def test_webdataset_keys_end_at_the_first_dot_of_the_base_name(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of(["d/22.0/1.1.png", "x.left.jpg", "d.e/.png.png"]))
    assert [query.id for query in rows_of(tmp_path / "a.tar")] == ["d/22.0/1", "x", "d.e/.png"]


def test_what_other_programs_leave_in_folders_is_passed_over(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = tmp_path / "data"
    for name in (
        "part-0.parquet",
        "_temporary/0/part-1.parquet",
        "._part-0.parquet",
        ".part-0.parquet",
        "_metadata.parquet",
    ):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"path": [name]}), data / name)
    assert [query.path for query in rows_of(data)] == ["part-0.parquet"]
    photos = tmp_path / "photos"
    for name in ("a.jpg", "._a.jpg", "_b.jpg", "sub/._c.jpg", "sub/d.jpg", "__MACOSX/._a.jpg"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(b"x")
    assert [query.path for query in rows_of(photos)] == ["_b.jpg", "a.jpg", "sub/d.jpg"]
    assert "._" not in "".join(query.path for query in rows_of(f"{photos}/**/*.jpg"))
    (tmp_path / "s.tar").write_bytes(tar_of(["a.jpg", "._a.jpg"]))
    assert [query.id for query in rows_of(tmp_path / "s.tar")] == ["a"]


# Generated lists, read by pandas and by us: the same rows, or an error or a reason from us.

CELL = st.text(st.sampled_from('ab,"\n\r; \té0\\'), max_size=6)


@st.composite
def csv_texts(draw):
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    width = draw(st.integers(2, 3))  # of one column, pandas passes over what looks blank
    header = ["path", "x", "y"][:width]
    rows = draw(st.lists(st.lists(CELL, min_size=width, max_size=width), max_size=6))
    out = io.StringIO()
    csv.writer(out, lineterminator=end).writerows([header, *rows])
    text = out.getvalue()
    for _ in range(draw(st.integers(0, 2))):  # and damage
        at = draw(st.integers(len(",".join(header)) + 1, len(text)))
        text = text[:at] + draw(st.sampled_from(['"', ",", "\n", "\r", "\r\n", "a,"])) + text[at:]
    return text


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=csv_texts())
@example(text="path,x\r\r,")
@pytest.mark.filterwarnings("ignore:Length of header:pandas.errors.ParserWarning")
def test_csv_has_the_rows_that_pandas_sees(tmp_path, text):
    path = tmp_path / "m.csv"
    path.write_bytes(text.encode())
    try:
        ours = rows_of(path)
    except ManifestError:
        return
    assert len(ours) <= open_manifest(path).num_rows
    if "\r" in text.replace("\r\n", ""):
        # pandas loses fields and rows beside a carriage return by itself.
        _, *records = (fields for fields in csv.reader(io.StringIO(text, newline=""), strict=True) if fields)
        assert [query.path or "" for query in ours if "fields" not in (query.error or "")] == [
            fields[0] for fields in records if len(fields) == len(text.splitlines()[0].split(","))
        ]
        assert len(ours) == len(records)
        return
    try:
        theirs = pandas.read_csv(
            path, dtype=str, keep_default_na=False, engine="c", index_col=False, on_bad_lines="error"
        )
    except (pandas.errors.ParserError, csv.Error, IndexError):
        assert any(query.status.value == "unreadable" for query in ours) or len(ours) >= text.count("\n") // 2
        return
    if all("fields" not in (query.error or "") for query in ours):
        assert [query.path or "" for query in ours] == theirs["path"].tolist()
    else:
        assert len(ours) >= len(theirs)


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["path", "id", "x"]), st.text(max_size=4) | st.integers(-9, 9)), max_size=8
    ),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.booleans(),
)
def test_jsonl_has_the_rows_that_json_sees(tmp_path, objects, end, escaped):
    path = tmp_path / "m.jsonl"
    text = "".join(json.dumps(each, ensure_ascii=escaped) + end for each in objects)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        manifest = open_manifest(path)
    except ManifestError:
        assert not any("path" in each for each in objects)
        return
    queries = list(manifest.rows())
    assert len(queries) == len(objects) <= manifest.num_rows
    for query, each in zip(queries, objects, strict=True):
        assert query.id == (None if each.get("id") is None else str(each["id"]))
