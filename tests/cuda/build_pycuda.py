"""Build the real PyCUDA on a machine without a GPU, for tests on the pretend driver.

python tests/cuda/build_pycuda.py FOLDER    # PyCUDA and what it imports end up in FOLDER
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "2026.1"
# PyCUDA is linked with the driver's library, which a machine without a driver lacks. One symbol
# makes the linker keep the dependency; all are looked up when the extension is loaded.
STUB = "int cuInit(unsigned flags) { return 100; }\n"


def main(folder: Path) -> None:
    if (folder / "pycuda").is_dir():
        return
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise SystemExit("nvcc is not installed: PyCUDA can't be built")
    candidates = [Path(nvcc).resolve().parent.parent, Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))]
    toolkit = next((folder for folder in candidates if (folder / "include" / "cuda.h").exists()), None)
    if toolkit is None:
        raise SystemExit("cuda.h was not found: set CUDA_HOME to the CUDA toolkit's folder")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        subprocess.run(
            [*pip, "download", "--no-deps", "--no-binary", "pycuda", f"pycuda=={VERSION}", "-d", work], check=True
        )
        with tarfile.open(next(work.glob("pycuda-*.tar.gz"))) as archive:
            archive.extractall(work, filter="data")
        source = next(path for path in work.glob("pycuda-*") if path.is_dir())
        (work / "stub.c").write_text(STUB)
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", work / "libcuda.so", work / "stub.c"],
            check=True,
        )
        (source / "siteconf.py").write_text(
            f"CUDA_ROOT = {str(toolkit)!r}\n"
            "CUDA_ENABLE_CURAND = False\n"
            "USE_SHIPPED_BOOST = True\n"
            f"CUDADRV_LIB_DIR = [{str(work)!r}]\n"
            f"CUDART_LIB_DIR = [{str(toolkit / 'lib64')!r}]\n"
        )
        unfinished = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        environment = {**os.environ, "CFLAGS": "-O1 -g0 -w", "CXXFLAGS": "-O1 -g0 -w"}
        subprocess.run([*pip, "install", "--target", unfinished, source], check=True, env=environment)
        for name in ("numpy", "numpy.libs"):  # the environment has one
            shutil.rmtree(unfinished / name, ignore_errors=True)
        unfinished.rename(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
