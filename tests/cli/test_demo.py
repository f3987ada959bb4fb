"""What `make demo` does: the model that comes with the package shows what the prompt says."""

import pytest

from wan_model.cli import main
from wan_model.pipeline import TINY_DIRECTORY
from wan_model.video_io import missing_encoder, read_video

pytestmark = pytest.mark.skipif(not TINY_DIRECTORY.is_dir(), reason="the tiny weights are not trained yet")


@pytest.mark.skipif(missing_encoder() is not None, reason=str(missing_encoder()))
@pytest.mark.parametrize(
    ("prompt", "colour", "shape", "motion", "background"),
    [
        ("a red circle moves right over a blue background", "red", "circle", "right", "blue"),
        ("一个绿色方形在黑色背景上向上移动", "green", "square", "up", "black"),
    ],
)
def test_the_prompt_is_shown(tmp_path, prompt, colour, shape, motion, background):
    from benchmarks.vision import Sighting, look

    assert main(["generate", prompt, "-o", str(tmp_path / "demo.mp4")]) == 0
    frames = read_video(tmp_path / "demo.mp4")
    assert len(frames) >= 17
    assert look(frames) == Sighting(colour, shape, motion, background)
