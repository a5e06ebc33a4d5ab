"""Make the kit: `python -m benchmarks.gpu_kit OUT`."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from pscr_engine.errors import PscrError

from ..common import commit
from .pack import compress, make_parts
from .tree import project_tree
from .wheels import ARCHIVES, download, unpack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--python", default="3.12", help="Python version of the host")
    parser.add_argument("--compute-capability", type=int, default=90, help="of the host's GPU, 90 for 9.0")
    parser.add_argument("--wheels", type=Path, help="folder to keep downloaded wheels in")
    parser.add_argument("--part-mib", type=int, default=60, help="size of a part at most")
    parser.add_argument("--preset", type=int, default=9, choices=range(10), help="of xz; 0 is quick")
    arguments = parser.parse_args()
    if arguments.out.exists():
        raise SystemExit(f"error: {arguments.out}: is there already; remove it, or name another folder")
    try:
        with tempfile.TemporaryDirectory() as temporary:
            work = Path(temporary)
            wheels = arguments.wheels or work / "wheels"
            archives: dict[str, Path] = {}
            for name, packages in ARCHIVES.items():
                print(f"{name}: {', '.join(packages)}", flush=True)
                download(packages, wheels, arguments.python)
                unpack(name, wheels, work / name, arguments.python, arguments.compute_capability)
                archives[name] = compress(work / name, work / f"{name}.tar.xz", arguments.preset)
                shutil.rmtree(work / name)
            project_tree(work / "project")
            project = {"project": compress(work / "project", work / "project.tar.xz", arguments.preset)}
            facts = {"python": arguments.python, "commit": commit()}
            parts = make_parts({**project, **archives}, arguments.out, facts, arguments.part_mib * 2**20)
    except PscrError as error:
        raise SystemExit(f"error: {error}") from None
    for part in parts:
        size = sum(file.stat().st_size for file in part.iterdir())
        print(f"{part}: {size / 2**20:.1f} MiB", flush=True)
    print(f"on the host: python3 {parts[0].name}/first_contact.py")


if __name__ == "__main__":
    main()
