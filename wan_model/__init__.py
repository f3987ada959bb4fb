"""The Wan video model: networks, sampling, training and the `wan` command, assembled from `wan_kernels`.

    >>> from wan_model import generate, load_pipeline
    >>> result = generate(load_pipeline("tiny"), ["a red circle moves right over a blue background"])
    >>> result.save("out.mp4")

Importing this package imports nothing else: names are resolved on first use, so that `wan --help` answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wan_model.config import PRESETS, ModelConfig, get_preset
    from wan_model.pipeline import Cancelled, Pipeline, StepInfo, generate, load_pipeline

__version__ = "0.1.0"

_HOME = {
    "PRESETS": "wan_model.config",
    "ModelConfig": "wan_model.config",
    "get_preset": "wan_model.config",
    "Cancelled": "wan_model.pipeline",
    "Pipeline": "wan_model.pipeline",
    "StepInfo": "wan_model.pipeline",
    "generate": "wan_model.pipeline",
    "load_pipeline": "wan_model.pipeline",
}

__all__ = ["PRESETS", "Cancelled", "ModelConfig", "Pipeline", "StepInfo", "generate", "get_preset", "load_pipeline"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'wan_model' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
