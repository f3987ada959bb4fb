"""q, k and v of attention as a model really has them: caught from outside while it generates.

The DiT knows nothing of it. Hooks on its attention layers say whose call comes next, and a dispatch mode reads the
arguments of `wan_kernels::attention` as they pass.
Letters: B batch, L queries, S keys, N heads, H head width.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from wan_model.dit import Block
from wan_model.pipeline import Cancelled, Pipeline, StepInfo, sample
from wan_model.schedules import make_schedule
from wan_model.settings import Settings
from wan_model.tensor_files import write_all

Kind = Literal["self", "cross"]


@dataclass(frozen=True)
class Place:
    """Whose attention: steps and layers count from 0; sigma is the noise level that the step starts from."""

    step: int
    layer: int
    kind: Kind
    sigma: float

    @property
    def name(self) -> str:
        return f"step{self.step:03}.layer{self.layer:02}.{self.kind}"


@dataclass(frozen=True)
class Capture:
    """Of the first prompt, at guidance its positive half: q [1, L, N, H], k and v [1, S, N, H], normed and rotated."""

    place: Place
    q: Tensor
    k: Tensor
    v: Tensor


@dataclass
class _Recorder(TorchDispatchMode):
    """Keeps the first call of each layer and step that is wanted."""

    layers: Sequence[int]
    steps: Sequence[int]
    sigmas: Sequence[float]
    step: int = 0
    current: tuple[int, Kind] | None = None
    found: dict[str, Capture] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.wan_kernels.attention.default and self.current is not None:
            self._keep(*args[:3])
        return func(*args, **(kwargs or {}))

    def _keep(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        assert self.current is not None
        layer, kind = self.current
        place = Place(self.step, layer, kind, self.sigmas[self.step])
        if self.step in self.steps and layer in self.layers and place.name not in self.found:
            self.found[place.name] = Capture(place, *map(first_sample, (q, k, v)))

    def enter(self, where: tuple[int, Kind], *_: Any) -> None:
        self.current = where

    def leave(self, *_: Any) -> None:
        self.current = None

    def advance(self, info: StepInfo) -> bool:
        """The pipeline's callback: ends the run when nothing wanted is left."""
        self.step = info.step
        return self.step <= max(self.steps)


def first_sample(x: Tensor) -> Tensor:
    """A copy on the CPU: the memory may be used again, and safetensors wants each tensor to have its own."""
    return x[:1].cpu().clone(memory_format=torch.contiguous_format)


def capture(
    pipeline: Pipeline,
    settings: Settings,
    *,
    layers: Sequence[int],
    steps: Sequence[int],
    callback: Callable[[StepInfo], object] = lambda info: None,
) -> list[Capture]:
    """Self- and cross-attention of these layers in these steps of one run, which ends with the last of them.

    The DiTs must not be in 8 bits, where attention sees codes. Raises: ValueError for a layer or a step out of range.
    """
    check_places(layers, steps, num_layers=pipeline.config.dit.num_layers, num_steps=settings.num_steps)
    schedule = make_schedule(settings.solver, settings.num_steps, shift=settings.shift)
    recorder = _Recorder(layers, steps, schedule.sigmas)

    def advance(info: StepInfo) -> bool:
        callback(info)
        return recorder.advance(info)

    with watching(pipeline, recorder), recorder, suppress(Cancelled):
        sample(pipeline, settings, advance)
    return list(recorder.found.values())


def check_places(layers: Sequence[int], steps: Sequence[int], *, num_layers: int, num_steps: int) -> None:
    for what, given, count in (("layers", layers, num_layers), ("steps", steps, num_steps)):
        for each in given:
            if not 0 <= each < count:
                raise ValueError(f"[capture] {what} must be in [0, {count}), got {each}")


@contextmanager
def watching(pipeline: Pipeline, recorder: _Recorder) -> Iterator[None]:
    """Hooks that tell the recorder which layer attends; gone when the block ends."""
    handles = []
    for dit in pipeline.dits:
        for layer, block in enumerate(dit.blocks):
            block = cast(Block, block)
            kinds: tuple[tuple[Kind, torch.nn.Module], ...] = (("self", block.self_attn), ("cross", block.cross_attn))
            for kind, attention in kinds:
                handles.append(attention.register_forward_pre_hook(partial(recorder.enter, (layer, kind))))
                handles.append(attention.register_forward_hook(recorder.leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def write(path: Path, captures: Sequence[Capture], settings: Settings, model: str) -> None:
    """One safetensors file, whole or not at all: NAME.q, NAME.k and NAME.v of each capture.

    Its metadata: model, prompt, seed, and as JSON settings and captures (name, step, layer, kind, sigma).
    """
    from safetensors.torch import save_file

    tensors = {f"{each.place.name}.{part}": getattr(each, part) for each in captures for part in "qkv"}
    places = [{"name": each.place.name, **asdict(each.place)} for each in captures]
    metadata = {"model": model, "prompt": settings.prompts[0], "seed": str(settings.seeds[0])}
    metadata |= {"settings": json.dumps(asdict(settings), ensure_ascii=False), "captures": json.dumps(places)}
    write_all(path.parent, {path.name: partial(save_file, tensors, metadata=metadata)})
