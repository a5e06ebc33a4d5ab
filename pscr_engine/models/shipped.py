"""The models that come with pscr-engine."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..atomic import atomic_directory, sha256_of
from ..bundle import MANIFEST_NAME, Bundle
from ..errors import BundleError, OutputError
from .facts import ModelFacts

DEFAULT_MODEL = "agiqa3k-lite0"
"""The shipped model that commands take where there is no model.pscr."""

FOLDER = Path(__file__).parent
"""The folder of the shipped models."""

_SUFFIX = ".pscr"
# Plans are made where a bundle is used, and are no part of it.
_PLANS = "plans"


@dataclass(frozen=True, slots=True)
class ShippedModel:
    """A model that comes with pscr-engine.

    Args:
        name: what users call it.
        path: the folder of its bundle.
    """

    name: str
    path: Path

    def open(self) -> Bundle:
        """Read and verify its bundle.

        Raises:
            BundleError: it is damaged, or not there.
        """
        try:
            return Bundle.open(self.path)
        except BundleError as error:
            raise BundleError(f"the shipped model {self.name}: install pscr-engine again ({error})") from error

    def facts(self) -> ModelFacts:
        """Read what is known about it.

        Raises:
            BundleError: its file of facts is missing or malformed, or is about another bundle.
        """
        path = self.path.with_suffix(".json")
        facts = ModelFacts.read(path)
        if facts.bundle != (digest := sha256_of(self.path / MANIFEST_NAME)):
            raise BundleError(
                f"{path}: is about another bundle ({facts.bundle[:12]}…) than the one beside it ({digest[:12]}…); "
                "install pscr-engine again"
            )
        return facts

    def card(self) -> str:
        """Read its model card, a text in Markdown.

        Raises:
            BundleError: it has none.
        """
        path = self.path.with_suffix(".md")
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise BundleError(f"{path}: the model card can't be read; install pscr-engine again") from error

    def size(self) -> int:
        """Return the size of its bundle's files in bytes, without TensorRT plans."""
        return sum(file.stat().st_size for file in self._files())

    def copy(self, target: Path) -> Bundle:
        """Copy its bundle, without TensorRT plans, to a folder that is not there yet.

        Raises:
            OutputError: there is something at `target`, or it can't be written.
            BundleError: the bundle is damaged.
        """
        self.open()
        if target.exists() or target.is_symlink():
            raise OutputError(f"{target}: is there already; choose another folder to copy to")
        try:
            with atomic_directory(target) as folder:
                for file in self._files():
                    copied = folder / file.relative_to(self.path)
                    copied.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, copied)  # without its permissions: those of a package may be read-only
        except OSError as error:
            raise OutputError(f"{target}: can't be written ({error.strerror}); choose another folder") from error
        return Bundle.open(target)

    def _files(self) -> list[Path]:
        plans = self.path / _PLANS
        return [file for file in sorted(self.path.rglob("*")) if file.is_file() and plans not in file.parents]


def shipped_models() -> dict[str, ShippedModel]:
    """List the shipped models by name, the default one first."""
    paths = {path.stem: path for path in sorted(FOLDER.glob(f"*{_SUFFIX}")) if path.is_dir()}
    names = sorted(paths, key=lambda name: (name != DEFAULT_MODEL, name))
    return {name: ShippedModel(name, paths[name]) for name in names}


def find_model(name: str) -> ShippedModel:
    """Return the shipped model of that name.

    Raises:
        BundleError: this installation ships none of that name.
    """
    models = shipped_models()
    if name not in models:
        raise BundleError(f"{name}: the pscr-engine here ships no model of that name ({suggest(name, models)})")
    return models[name]


def suggest(name: str, models: Iterable[str]) -> str:
    """List the names of shipped models, with the one that was perhaps meant by `name`."""
    names = list(models)
    near = difflib.get_close_matches(name.lower().removesuffix(_SUFFIX), names, n=1)
    listed = f"shipped: {', '.join(names) or 'none'}"
    return f"{listed}; did you mean {near[0]}?" if near else listed


def shipped_at(path: Path) -> ShippedModel | None:
    """Return the shipped model whose bundle is at `path`; None for any other bundle."""
    model = shipped_models().get(path.stem)
    return model if model is not None and model.path.resolve() == path.resolve() else None
