"""Make a type stub of each version of TensorRT's real Python bindings, without TensorRT or a GPU.

The bindings' wheel holds one extension module. It loads once placeholders stand in for TensorRT's libraries, of
which it needs ten C functions; its docstrings then give every class, method and parameter.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


class Bindings(NamedTuple):
    """One version of one of the two TensorRTs: package, extension module in it, libraries that this needs."""

    package: str
    version: str
    extension: str
    libraries: tuple[str, ...]

    @property
    def rtx(self) -> bool:
        return "rtx" in self.package


_FULL = ("tensorrt_bindings/tensorrt", ("nvinfer", "nvinfer_plugin", "nvonnxparser"))
_RTX = ("tensorrt_rtx_bindings/tensorrt_rtx", ("tensorrt_rtx", "tensorrt_onnxparser_rtx"))
# The first and the last minor release of each major one that pscr-engine is for, with CUDA 13.
VERSIONS = (
    *(
        Bindings("tensorrt_cu13_bindings", version, *_FULL)
        for version in ("10.13.3.9.post1", "10.16.1.11", "11.0.0.114", "11.4.0.106")
    ),
    *(Bindings("tensorrt_rtx_cu13_bindings", version, *_RTX) for version in ("1.4.0.76", "1.7.1.116")),
)
_PLACEHOLDERS = "\n".join(
    f"void *{name}(void) {{ return 0; }}"
    for name in (
        "createInferBuilder_INTERNAL", "createInferRuntime_INTERNAL", "createInferRefitter_INTERNAL",
        "createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getPluginRegistry",
        "getBuilderPluginRegistry", "getNvOnnxParserVersion", "getInferLibVersion", "initLibNvInferPlugins",
    )
)  # fmt: skip


def download(bindings: Bindings, folder: Path) -> bool:
    """Fetch and unpack the wheel; False where that can't be done."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command = [*pip, "--only-binary=:all:", "--dest", folder, f"{bindings.package}=={bindings.version}"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        return False
    subprocess.run([sys.executable, "-m", "zipfile", "-e", next(folder.glob("*.whl")), folder / "wheel"], check=True)
    return True


def make_stub(bindings: Bindings, folder: Path) -> Path:
    """Write `folder`/stub/tensorrt/__init__.pyi, from the wheel unpacked in `folder`.

    TensorRT for RTX is there under its own name, too: what both have in common is checked against each.
    """
    arguments = [str(folder), bindings.extension, *bindings.libraries]
    subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True)
    made = repaired((folder / f"raw/{bindings.extension}.pyi").read_text())
    for name in ("tensorrt", "tensorrt_rtx_bindings")[: 1 + bindings.rtx]:
        out = folder / f"stub/{name}/__init__.pyi"
        out.parent.mkdir(parents=True)
        out.write_text(
            made if name == "tensorrt" else "from tensorrt import *\nfrom tensorrt import __version__ as __version__\n"
        )
    return folder / "stub"


def repaired(stub: str) -> str:
    """Correct what the docstrings get wrong in a stub, and add what they don't say."""
    # A parameter called `in`, and the module's own `bool`, which hides Python's.
    stub = re.sub(r"([(, ])in: ", r"\1in_: ", stub)
    stub = re.sub(r"(-> |: )bool\b(?! *#)", r"\1builtins.bool", stub)
    stub = re.sub(r"(?m)^(\s*def \w+\()(.*)(\)(?: -> .*)?:)$", _parameters, stub)
    # Factories return None where TensorRT fails; host memory is a buffer.
    for factory in ("build_serialized_network", "deserialize_cuda_engine", "create_execution_context"):
        stub = re.sub(rf"(def {factory}\(.*\) -> )(\w+):", r"\1\2 | None:", stub)
    stub = stub.replace(
        "class IHostMemory:\n", "class IHostMemory:\n    def __buffer__(self, flags: int, /) -> memoryview: ...\n"
    )
    return stub.replace("import typing\n", "import builtins\nimport typing\n__version__: str\n", 1)


def _parameters(match: re.Match[str]) -> str:
    """Give a default to each parameter behind one that has one, and let sequences stand for Dims."""
    depth, parts = 0, [""]
    for letter in match[2]:
        depth += (letter in "[(") - (letter in ")]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    optional, fixed = False, []
    for part in parts:
        if "=" in part:
            optional = True
        elif optional and not part.strip().startswith("*"):
            part += " = ..."
        fixed.append(re.sub(r"(?<=: )Dims\b", "Dims | typing.Sequence[typing.SupportsInt]", part))
    return match[1] + ",".join(fixed) + match[3]


def _write_raw_stub(folder: Path, extension: str, libraries: list[str]) -> None:
    """Write the stub that the docstrings give; in a process of its own, since a process can load one version."""
    content = (folder / f"wheel/{extension}.so").read_bytes()
    source = folder / "placeholders.c"
    source.write_text(_PLACEHOLDERS + "\n")
    for name in libraries:
        soname = re.search(rb"lib%b\.so\.\d+(?=\x00)" % name.encode(), content)
        assert soname is not None
        library = soname[0].decode()
        flags = ["-shared", "-fPIC", f"-Wl,-soname,{library}"]
        subprocess.run(["cc", *flags, "-o", folder / library, source], check=True)
        ctypes.CDLL(str(folder / library), mode=ctypes.RTLD_GLOBAL)
    sys.path.insert(0, str(folder / "wheel"))
    import pybind11_stubgen

    # The extension alone: its package looks for the libraries' package, too.
    package = folder / "wheel" / Path(extension).parent / "__init__.py"
    package.write_text("")
    sys.argv = ["pybind11-stubgen", extension.replace("/", "."), "-o", str(folder / "raw"), "--ignore-all-errors"]
    pybind11_stubgen.main()


if __name__ == "__main__":
    _write_raw_stub(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
