import json
import re
from pathlib import Path

import pytest

from benchmarks.common import ROOT
from benchmarks.marked import put, shown
from benchmarks.peers import table


def peer(about, rate, ratio=None):
    found = {"about": about, "images_per_second": {"min": rate, "median": rate, "max": rate}}
    if ratio is not None:
        found["pscr-engine int8 is times as fast"] = {"min": ratio, "median": ratio, "max": ratio}
    return found


def test_the_tables_are_made_from_the_record(tmp_path, monkeypatch):
    ours, tuned = peer("ours, INT8", 48.44), peer("tuned", 11.91, 4.07)
    record = {
        "backbones": {
            "resnet18": {
                "peers": {"pscr-engine int8": ours, "b: tuned": tuned, "other": peer("another", 0.123, 394.2)}
            },
            "resnet50": {"peers": {"pscr-engine int8": peer("ours, INT8", 20.0)}},
        }
    }
    readme, page, file = tmp_path / "README.md", tmp_path / "speed.md", tmp_path / "cpu-x.json"
    for each in (readme, page):
        each.write_text(f"before\n\n{table.begin(file)}\n\nold table\n\n{table.END}\n\nafter\n")
    file.write_text(json.dumps(record))
    monkeypatch.setattr(table, "README", readme)
    monkeypatch.setattr(table, "PAGE", page)
    table.write_tables(file)
    for each in (readme, page):
        text = each.read_text()
        assert text.startswith("before\n")
        assert text.endswith("\n\nafter\n")
        assert "old table" not in text
        assert "| ours, INT8 | 48.4 |  | 20 |  |" in text
        assert "| tuned | 11.9 | 4.07× | - | - |" in text
    assert "| another | 0.123 | 394× | - | - |" in page.read_text()
    assert "another" not in readme.read_text()
    before = readme.read_text(), page.read_text()
    table.write_tables(file)
    assert (readme.read_text(), page.read_text()) == before, "again is no change"
    other = tmp_path / "cpu-y.json"
    other.write_text(json.dumps({"backbones": {}}))
    table.write_tables(other)
    assert (readme.read_text(), page.read_text()) == before, "the pages have no table of that record"


def test_peers_are_compared_with_the_engine_that_is_faster():
    def against(onnxruntime, openvino):
        found = peer("tuned", 12.0, 48 / 12)
        found["pscr-engine int8, openvino is times as fast"] = {"median": openvino / 12}
        peers = {"pscr-engine int8": peer("on ONNX Runtime", onnxruntime), "b: tuned": found}
        peers["pscr-engine int8, openvino"] = peer("on OpenVINO", openvino)
        return table.table({"backbones": {"resnet18": {"peers": peers}}})

    assert "| tuned | 12 | 4× |" in against(48.0, 42.0)
    assert "| tuned | 12 | 5× |" in against(48.0, 60.0)


def test_a_page_that_has_lost_its_marks_is_left_alone(tmp_path):
    page, begin = tmp_path / "page.md", table.begin(Path("cpu-x.json"))
    page.write_text(f"before\n{begin}\nrest\n")
    with pytest.raises(ValueError, match="has no <!-- /peers -->"):
        put(page, begin, table.END, "table")
    assert page.read_text() == f"before\n{begin}\nrest\n"


@pytest.mark.parametrize(("page", "only"), [(table.README, table.CHIEF), (table.PAGE, None)])
def test_the_pages_hold_the_tables_of_the_records_that_they_name(page, only):
    """Check that the figures in docs/speed.md and the README are those of records in results/, not typed in."""
    names = re.findall("<!-- peers of ([^:]*):", page.read_text("utf-8"))
    assert len(names) == (1 if only else 2)
    for name in names:
        file = ROOT / f"benchmarks/results/{name}.json"
        assert shown(page, table.begin(file), table.END) == table.table(json.loads(file.read_text()), only)
