"""What pscr-engine asks of TensorRT, against the real bindings of several versions. It shows names, not numbers."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import contract

ROOT = Path(__file__).parents[3]
USERS = [ROOT / "pscr_engine/backends/tensorrt" / name for name in ("logger.py", "builder.py", "engine.py")]
RTX = ROOT / "pscr_engine/backends/tensorrt/rtx.py"
FAKE = Path(__file__).parent / "fake/tensorrt.py"
FAKE_RTX = FAKE.with_name("tensorrt_rtx.py")
# Of the fake alone: how its own objects are made.
NOT_CALLED = {"__init__", "__bytes__"}


@pytest.fixture(scope="module", params=contract.VERSIONS, ids=lambda bindings: f"{bindings.package}-{bindings.version}")
def stub(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensorrt")
    if not contract.download(request.param, folder):
        pytest.skip(f"{request.param.package} {request.param.version} can't be downloaded here")
    return contract.make_stub(request.param, folder)


def check(stub, *files):
    config = stub / "mypy.ini"
    config.write_text(
        "[mypy]\ncheck_untyped_defs = True\ndisallow_untyped_defs = True\nfollow_imports = silent\n"
        "[mypy-tensorrt.*]\nignore_errors = True\nfollow_imports = normal\n"
        "[mypy-tensorrt_rtx_bindings.*]\nignore_missing_imports = True\nignore_errors = True\nfollow_imports = normal\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", stub / "cache", *files],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(stub)},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_code_fits_the_real_bindings(stub, tmp_path):
    rtx = (stub / "tensorrt_rtx_bindings").exists()
    outcome = check(stub, *USERS, *([RTX] if rtx else []))
    assert outcome.returncode == 0, outcome.stdout
    wrong = tmp_path / "wrong.py"
    wrong.write_text(USERS[1].read_text().replace("config.max_aux_streams", "config.max_auxiliary_streams"))
    wrong.write_text(
        wrong.read_text()
        .replace("from ...", "from pscr_engine.")
        .replace("from .", "from pscr_engine.backends.tensorrt.")
    )
    outcome = check(stub, wrong)
    assert outcome.returncode == 1, "the check finds nothing"
    assert 'no attribute "max_auxiliary_streams"' in outcome.stdout
    assert len(outcome.stdout.splitlines()) == 2, outcome.stdout


@pytest.mark.slow
def test_the_fake_has_nothing_that_tensorrt_has_not(stub):
    real = _classes((stub / "tensorrt/__init__.pyi").read_text())
    fake = _classes(FAKE.read_text())
    if (stub / "tensorrt_rtx_bindings").exists():
        del fake["ITimingCache"]  # it does nothing there, and isn't asked for
        fake = _merged(fake, _classes(FAKE_RTX.read_text()))
    assert len(fake) > 15
    for name, (methods, values) in fake.items():
        assert name in real, f"TensorRT has no {name}"
        real_methods, real_values = real[name]
        for method, parameters in methods.items():
            if method in NOT_CALLED or method.startswith("_"):
                continue
            assert method in real_methods, f"{name} has no {method}"
            options = [names for names in real_methods[method] if names[: len(parameters)] == parameters]
            assert options, f"{name}.{method}{parameters} is {real_methods[method]}"
        for value in values:
            assert value in real_values | set(real_methods), f"{name} has no {value}"


def _merged(fake, more):
    """Add the classes of the fake for RTX, which inherit from those of the same name."""
    out = dict(fake)
    for name, (methods, values) in more.items():
        inherited = fake.get(name, ({}, set()))
        out[name] = ({**inherited[0], **methods}, inherited[1] | values)
    return out


def _classes(source):
    """Return class → (methods with the parameter names of each overload, other names)."""
    out = {}
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        methods, values = {}, set()
        for item in node.body:
            if isinstance(item, ast.FunctionDef):
                names = [argument.arg for argument in (*item.args.posonlyargs, *item.args.args)]
                methods.setdefault(item.name, []).append(names[1:] if names[:1] == ["self"] else names)
            elif isinstance(item, ast.AnnAssign):
                values.add(item.target.id)
            elif isinstance(item, ast.Assign):
                values |= {target.id for target in item.targets if isinstance(target, ast.Name)}
        out[node.name] = (methods, values)
    if "FAKE_TENSORRT" in source:  # the fakes have no overloads
        out = {name: ({m: p[0] for m, p in methods.items()}, values) for name, (methods, values) in out.items()}
    return out
