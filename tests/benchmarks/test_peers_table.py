import json

from benchmarks.peers import table


def peer(about, rate, ratio=None):
    found = {"about": about, "images_per_second": {"min": rate, "median": rate, "max": rate}}
    if ratio is not None:
        found["pscr-engine int8 is times as fast"] = {"min": ratio, "median": ratio, "max": ratio}
    return found


def test_the_readmes_table_is_made_from_the_record(tmp_path, monkeypatch):
    record = {
        "backbones": {
            "resnet18": {"peers": {"ours": peer("ours, INT8", 48.44), "other": peer("another", 0.123, 394.2)}},
            "resnet50": {"peers": {"ours": peer("ours, INT8", 20.0)}},
        }
    }
    readme, file = tmp_path / "README.md", tmp_path / "cpu-x.json"
    readme.write_text(f"before\n\n{table.BEGIN}\n\nold table\n\n{table.END}\n\nafter\n")
    file.write_text(json.dumps(record))
    monkeypatch.setattr(table, "README", readme)
    table.write_tables(file)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\n\nafter\n")
    assert "old table" not in text
    assert "| ours, INT8 | 48.4 |  | 20 |  |" in text
    assert "| another | 0.123 | 394× | - | - |" in text
    table.write_tables(file)
    assert readme.read_text() == text, "again is no change"


def test_the_readme_holds_the_table_of_the_newest_record():
    """Check that the figures in the README are those of a record in results/, not typed in."""
    text = table.README.read_text(encoding="utf-8")
    shown = text.partition(table.BEGIN)[2].partition(table.END)[0].strip()
    records = [json.loads(file.read_text()) for file in (table.ROOT / "benchmarks/results").glob("cpu-*.json")]
    assert shown in [table.table(record) for record in records]
