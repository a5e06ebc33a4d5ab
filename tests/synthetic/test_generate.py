import numpy as np

from pscr_engine.synthetic import DEGRADATIONS, generate


def test_images_follow_from_the_seed_and_their_number():
    first, again, longer = (list(generate(count, size=64, seed=3)) for count in (6, 6, 8))
    for a, b, c in zip(first, again, longer, strict=False):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.image, c.image)
        assert a.mos == b.mos == c.mos
    assert not np.array_equal(next(generate(1, size=64, seed=4)).image, first[0].image)


def test_labels_fall_with_the_strength():
    made = list(generate(120, size=32))
    assert {image.degradation for image in made} == set(DEGRADATIONS)
    assert all(0 <= image.mos <= 5 and image.image.size == (32, 32) and image.image.mode == "RGB" for image in made)
    assert np.corrcoef([image.strength for image in made], [image.mos for image in made])[0, 1] < -0.97


def test_every_degradation_grows_with_its_strength():
    scene = next(generate(1, size=128, seed=1)).image
    for name, degrade in DEGRADATIONS.items():
        change = [
            np.abs(np.asarray(degrade(scene, strength, np.random.default_rng(0)), float) - np.asarray(scene)).mean()
            for strength in (0.1, 0.5, 1.0)
        ]
        assert change[0] < change[1] < change[2], (name, change)
