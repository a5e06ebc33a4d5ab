"""The models of a run, decided on and opened: one without a name, or several with names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ..backends.panel import check_panel_devices
from ..backends.precision import choose_precision
from ..bundle import Bundle
from ..config import ScoreConfig
from ..models import BundleChoice, Panel, choose_bundles
from .early import check_devices, rule_of

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Model:
    """A bundle that a run scores with.

    Args:
        name: under which its columns are; "" in a run of one bundle.
        choice: how it was decided on.
        bundle: opened.
        precision: which of its graphs.
    """

    name: str
    choice: BundleChoice
    bundle: Bundle
    precision: str


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a run, by the order of their names.

    Args:
        all: one whose name is "", or several.
    """

    all: tuple[Model, ...]

    @property
    def named(self) -> bool:
        """Tell whether columns have the models' names."""
        return bool(self.all[0].name)

    @property
    def only(self) -> Model:
        """Return the model of a run of one."""
        assert not self.named
        return self.all[0]

    def each(self, value: Callable[[Model], Value]) -> Value | dict[str, Value]:
        """Return a value of the only model, or name → value of several: as `_run.json` has it."""
        return {model.name: value(model) for model in self.all} if self.named else value(self.all[0])

    def text(self, value: Callable[[Model], str]) -> str:
        """Return a value of the only model, or those of several, with their names, as one text."""
        found = self.each(value)
        return found if isinstance(found, str) else " ".join(f"{name}={each}" for name, each in found.items())

    @property
    def feature_sizes(self) -> dict[str, int]:
        """Return name → C of each model."""
        return {model.name: model.bundle.info.feature_size for model in self.all}


def choose_models(config: ScoreConfig) -> ScoreConfig:
    """Decide which bundles a run has, once: workers open these, wherever they are.

    Raises:
        BundleError, UsageError: as in `choose_bundle`.
    """
    choices = choose_bundles(config.bundle)
    return replace(config, bundle=choices[""] if "" in choices else Panel(tuple(choices.items())))


def open_models(config: ScoreConfig, devices: Sequence[str]) -> Models:
    """Open a run's bundles, and decide which of their graphs run on `devices`.

    Raises:
        BundleError, UsageError, BackendError: one of them can't be used, or several not there.
    """
    choices = choose_bundles(config.bundle)
    if "" not in choices:
        check_panel_devices(devices)
    check_devices(config, devices)
    engine = "onnxruntime" if config.early else config.backend
    opened = [(name, choice, choice.open()) for name, choice in choices.items()]
    models = Models(
        tuple(
            Model(name, choice, bundle, choose_precision(bundle, config.precision, devices, backend=engine))
            for name, choice, bundle in opened
        )
    )
    for model in models.all:
        rule_of(config, model.bundle, model.precision)  # says what is missing before anything begins
    return models
