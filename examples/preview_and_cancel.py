"""Watch a video emerge, and stop as soon as you have seen enough.

    python examples/preview_and_cancel.py

A callback sees every step: where the sampler stands, what it expects, and a decoded first frame for the asking.
"""

from pathlib import Path

from wan_model import Cancelled, StepInfo, generate, load_pipeline
from wan_model.video_io import to_frames, write_image


def watch(info: StepInfo) -> bool:
    first_frame = to_frames(info.preview()[0])[0]
    path = write_image(Path(f"preview-{info.step:02d}.png"), first_frame)
    print(f"step {info.step} of {info.num_steps}, noise level {info.timestep} of 1000: {path}")
    return info.step < 8


try:
    generate(load_pipeline("tiny"), ["a yellow square moves left over a black background"], callback=watch)
except Cancelled as reason:
    print(reason)
