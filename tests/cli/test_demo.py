"""What `make demo` does: the model that comes with the package makes a video of what the prompt says."""

import numpy as np
import pytest

from wan_model.cli import main
from wan_model.video_io import missing_encoder, read_video

PROMPTS = [
    ("a red circle moves right over a blue background", "red", "circle", "right", "blue"),
    ("一个绿色方形在黑色背景上向上移动", "green", "square", "up", "black"),
]
pytestmark = pytest.mark.skipif(missing_encoder() is not None, reason=str(missing_encoder()))


@pytest.fixture
def frames(request, tmp_path) -> np.ndarray:
    assert main(["generate", request.param, "-o", str(tmp_path / "demo.mp4")]) == 0
    return read_video(tmp_path / "demo.mp4")


@pytest.mark.parametrize("frames", [prompt[0] for prompt in PROMPTS], indirect=True)
def test_the_video_decodes_and_is_not_empty(frames):
    assert frames.shape == (17, 96, 96, 3)
    assert frames.std() > 20


def test_the_prompts_are_shown(tmp_path):
    from benchmarks.vision import Sighting, look

    for prompt, colour, shape, motion, background in PROMPTS:
        assert main(["generate", prompt, "-o", str(tmp_path / "demo.mp4")]) == 0
        assert look(read_video(tmp_path / "demo.mp4")) == Sighting(colour, shape, motion, background)
