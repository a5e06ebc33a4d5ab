"""Train on AGIQA-3K, evaluate, measure, and make the model that ships.

python -m benchmarks.agiqa3k --data AGIQA-3K --weights FILE STEP ...

Steps, in this order: train NAME (a recipe; goes on after an interruption), figures, ship, calibrate, fidelity,
fidelity-vgg16, speed, early-decision, page.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from pscr_engine.bundle import Bundle
from pscr_engine.host import keep_freed_memory
from pscr_engine.models.shipped import FOLDER

from .recipes import RECIPES, Place, config

STEPS = ("figures", "ship", "calibrate", "fidelity", "fidelity-vgg16", "speed", "early-decision", "page")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Folder of AGIQA-3K.")
    parser.add_argument("--weights", default="imagenet", help="File of the trunk's ImageNet weights.")
    parser.add_argument("--work", type=Path, default=Path("trained-agiqa3k"), help="Folder for the trainings.")
    parser.add_argument(
        "steps", nargs="+", metavar="STEP", help=f"train NAME ({', '.join(RECIPES)}), {', '.join(STEPS)}"
    )
    arguments = parser.parse_args()
    keep_freed_memory(even_large=True)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for name in ("pscr_engine", "pscr_export", "pscr_training"):
        logging.getLogger(name).setLevel(logging.INFO)
    arguments.work.mkdir(parents=True, exist_ok=True)
    place, steps = Place(arguments.data, arguments.work), list(arguments.steps)
    while steps:
        step = steps.pop(0)
        if step == "train" and steps and steps[0] in RECIPES:
            from pscr_training.train import train

            train(config(steps.pop(0), place, arguments.weights))
        elif step in STEPS:
            run(step, place)
        else:
            parser.error(f"unknown step {step!r}")


def run(step: str, place: Place) -> None:
    """Run one step that needs no more than the trainings."""
    if step == "figures":
        from .figures import figures

        print(figures(place))
    elif step == "ship":
        from .ship import ship

        print(ship(place).path)
    elif step == "fidelity":
        from .fidelity import fidelity
        from .ship import NAME

        print(fidelity(place, NAME, Bundle.open(FOLDER / f"{NAME}.pscr"), place.work / f"{NAME}.pt"))
    elif step == "fidelity-vgg16":
        from .fidelity import fidelity
        from .ship import export

        name, few = "vgg16-head", 60  # a patch takes twenty times Lite0's time
        best, out = place.training(name) / "best.pt", place.work / f"{name}.pscr"
        precisions = ("fp32", "fp16", "int8")
        made = export(place, name, best, out, precisions, accept=frozenset({"int8"}), exemplars=32, images=few)
        print(fidelity(place, name, made, best, images=few))
    elif step == "calibrate":
        from .early import calibrate_shipped

        print(calibrate_shipped(place))
    elif step == "early-decision":
        from .early import early_decision

        print(early_decision(place))
    elif step == "page":
        from .page import write_page

        print(write_page())
    else:
        from .speed import speed

        print(speed(place))


if __name__ == "__main__":
    main()
