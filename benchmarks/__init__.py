"""The benchmarks: what is measured, how, and against whom. Run each as `python -m benchmarks.NAME`.

In a plain checkout, where nothing is installed, the packages under `export/` and `training/` are found, too: here, and
in the processes that a benchmark starts.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

_ROOT = Path(__file__).parent.parent
if find_spec("pscr_export") is None or find_spec("pscr_training") is None:
    _folders = [str(_ROOT), str(_ROOT / "export"), str(_ROOT / "training")]
    sys.path += _folders
    os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), *_folders])
