"""Libraries in `nvidia/*/lib` of a package folder are loaded without LD_LIBRARY_PATH, whatever their order."""

import os
import subprocess
import sys

import pytest

from pscr_engine.cuda.libraries import FOR_ONNXRUNTIME, library_files


@pytest.fixture
def site(tmp_path):
    """Make a package folder in which cublas needs cublasLt and cudart, by names that only the loader knows."""
    folder = tmp_path / "site/nvidia/cu13/lib"
    folder.mkdir(parents=True)
    for name, needs in (("cudart", []), ("cublasLt", ["cudart"]), ("cublas", ["cublasLt", "cudart"])):
        source = tmp_path / f"{name}.c"
        calls = " + ".join([*(f"{need}()" for need in needs), "1"])
        source.write_text(
            "".join(f"int {need}(void);\n" for need in needs) + f"int {name}(void) {{ return {calls}; }}\n"
        )
        file = folder / f"lib{name}.so.13"
        linked = [str(folder / f"lib{need}.so.13") for need in needs]
        subprocess.run(["cc", "-shared", "-fPIC", f"-Wl,-soname,{file.name}", "-o", file, source, *linked], check=True)
    (folder / "libcurand.so.10").write_bytes(b"not a library")
    return tmp_path / "site"


def run(site, code):
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r}); {code}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_what_others_ask_for_by_name_is_there(site):
    code = "import ctypes; print(ctypes.CDLL('libcublas.so.13').cublas())"
    assert run(site, code).returncode == 1, "the system's loader does not look there"
    load = (
        "from pscr_engine.cuda.libraries import *; found = load_libraries(('cublas', 'cublasLt', 'cudart', 'curand'))"
    )
    outcome = run(site, f"{load}; print(sorted(found)); {code}")
    assert outcome.stdout.split("\n")[:2] == ["['cublas', 'cublasLt', 'cudart']", "4"], outcome.stderr


def test_the_first_along_the_path_is_named(site, monkeypatch):
    monkeypatch.setattr(sys, "path", ["", str(site / "nothing"), str(site)])
    found = library_files(FOR_ONNXRUNTIME)
    assert {name: file.name for name, file in found.items()} == {
        "cudart": "libcudart.so.13",
        "cublasLt": "libcublasLt.so.13",
        "cublas": "libcublas.so.13",
        "curand": "libcurand.so.10",
    }
