"""Two videos from two prompts, from Python.

    python examples/generate.py

The tiny model comes with the package. For a released checkpoint give its directory: load_pipeline("Wan2.1-T2V-1.3B").
"""

from wan_model import generate, load_pipeline

pipeline = load_pipeline("tiny")
result = generate(
    pipeline,
    ["a red circle moves right over a blue background", "a green square moves up over a white background"],
    seed=7,
    num_steps=20,
)
for saved in result.save("example.mp4"):
    print(saved.video, saved.sheet, saved.record)
