"""Measure images per second of the bare ONNX Runtime session, by batch size.

python -m benchmarks.batch_size [BACKBONE ...]
"""

from __future__ import annotations

from time import perf_counter

from pscr_export.backbones import BACKBONES

from .common import host_backend, random_patches, record, spread, untrained_bundle, words

BATCHES = (1, 2, 4, 8, 16, 32)
ROUNDS = 5
METHOD = (
    "One session, all usable cores, OPS patches of noise. In each of the rounds every batch size runs in turn over "
    "as many batches as make at least 32 images (so that drift of the machine hits all alike); images/s per round."
)


def main(backbones: list[str]) -> None:
    figures = {}
    for backbone in backbones:
        bundle = untrained_bundle(backbone)
        backend = host_backend(bundle)
        patches = {size: random_patches(bundle, size) for size in BATCHES}
        rates: dict[int, list[float]] = {size: [] for size in BATCHES}
        images = 32 if backbone == "resnet18" else 16
        for size in BATCHES:
            backend.score(patches[size])
        for _ in range(ROUNDS if backbone == "resnet18" else 2):
            for size in BATCHES:
                start = perf_counter()
                for _ in range(max(1, images // size)):
                    backend.score(patches[size])
                rates[size].append(max(1, images // size) * size / (perf_counter() - start))
        figures[backbone] = {str(size): spread(rates[size]) for size in BATCHES}
        for size in BATCHES:
            print(f"{backbone:<12} batch {size:>3}: {figures[backbone][str(size)]} images/s")
    print(record("batch_size-cpu", METHOD, {"images_per_second": figures}))


if __name__ == "__main__":
    main(words(__doc__, BACKBONES) or ["resnet18", "resnet50"])
