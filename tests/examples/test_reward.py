"""The reward function, called as training libraries do."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pscr_engine import Scorer

from ..helpers.images import pixels

torch = pytest.importorskip("torch")

FILE = Path(__file__).parents[2] / "examples" / "reward.py"
IMAGES = np.stack([pixels(48, 40, seed) for seed in range(6)])
PROMPTS = [f"a cat {number}" for number in range(6)]


@pytest.fixture
def reward(tiny):
    spec = importlib.util.spec_from_file_location("reward", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.Reward(str(tiny.path))
    yield made
    made.close()


@pytest.fixture
def expected(tiny):
    with Scorer.open(tiny.path, device="cpu") as scorer:
        return [image.score for image in scorer.score(list(IMAGES))]


def test_by_position_and_by_names(reward, expected):
    pictures = [Image.fromarray(image) for image in IMAGES]
    assert reward(PROMPTS, pictures) == expected
    assert reward(prompts=PROMPTS, images=pictures, aesthetic=[1] * 6, trainer_state=None) == expected
    assert reward(prompts=PROMPTS, completions=pictures, completion_ids=[[1]] * 6) == expected
    assert all(type(value) is float for value in reward(PROMPTS, pictures))
    assert reward.__name__


def test_in_the_style_of_ddpo(reward, expected):
    floats = torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255  # what a pipeline gives as "pt"
    for images in (floats, floats.half().float(), IMAGES, torch.from_numpy(IMAGES), IMAGES / 255, list(floats)):
        rewards, info = reward.ddpo(images, PROMPTS, [{}] * 6)
        assert torch.as_tensor(rewards).tolist() == pytest.approx(expected, abs=1e-2)
        assert info == {}
    rewards, _ = reward.ddpo(floats.requires_grad_(), PROMPTS, {}, only_strict=True)
    assert rewards.tolist() == expected


def test_pools_of_threads_call_it(reward, expected):
    with ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(reward.ddpo, IMAGES[number % 6 : number % 6 + 1], ["x"], {}) for number in range(96)]
        assert [call.result()[0].tolist() for call in calls] == [[expected[number % 6]] for number in range(96)]


def test_what_would_teach_the_wrong_thing_is_an_error(reward):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]: rescale them"):
        reward(PROMPTS, torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 127.5 - 1)
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        reward(["x"], torch.full((1, 3, 40, 40), float("nan")))
    with pytest.raises(ValueError, match="5 prompts for 6 images"):
        reward(PROMPTS[:5], IMAGES)
    with pytest.raises(ValueError, match="image 1 can't be scored: undecodable, "):
        reward(None, [IMAGES[0], b"broken"])
    with pytest.raises(TypeError, match="needs images"):
        reward(PROMPTS)
    reward.failed = -1.0
    assert reward(None, [b"broken", IMAGES[0]])[0] == -1.0
