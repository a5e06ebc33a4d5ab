import os
import subprocess
import sys

import pytest

from pscr_engine.cuda.affinity import near_cpus, parse_cpu_list


def test_the_notation():
    assert parse_cpu_list("0-3,8\n") == {0, 1, 2, 3, 8}
    assert parse_cpu_list("\n") == set()
    with pytest.raises(ValueError, match="invalid literal"):
        parse_cpu_list("all")


def test_cores_come_from_the_pci_device(tmp_path):
    folder = tmp_path / "0000:1a:00.0"
    folder.mkdir()
    (folder / "local_cpulist").write_text("16-31\n")
    assert near_cpus("0000:1A:00.0", tmp_path) == set(range(16, 32))
    assert near_cpus("0000:1B:00.0", tmp_path) == set()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core only")
def test_a_worker_keeps_to_cores_that_it_may_use(tmp_path):
    allowed = sorted(os.sched_getaffinity(0))
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0/local_cpulist").write_text(f"{allowed[0]},9999")
    code = (
        "import os; from pathlib import Path; from pscr_engine.cuda import affinity;"
        f"found = affinity.near_cpus; affinity.near_cpus = lambda pci: found(pci, Path({str(tmp_path)!r}));"
        "affinity.stay_near('0000:01:00.0'); print(os.sched_getaffinity(0));"
        "affinity.stay_near('0000:02:00.0'); print(os.sched_getaffinity(0))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split("\n")[:2] == [str({allowed[0]})] * 2
