"""What a generation would cost and which kernels it would run, without weights and without computing anything."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from wan_kernels import dispatch
from wan_model.config import ModelConfig
from wan_model.dit import DiT
from wan_model.settings import check_num_frames, check_size, latent_shape, num_tokens
from wan_model.text_encoder import TextEncoder
from wan_model.tracing import Call, Trace, extrapolate, trace
from wan_model.vae import WanVAE

DeviceName = Literal["cpu", "cuda"]
Network = TypeVar("Network", bound=nn.Module)

WEIGHT_DTYPES: dict[str, torch.dtype] = {"cpu": torch.float32, "cuda": torch.bfloat16}


@dataclass(frozen=True)
class Row:
    """All calls of one op at one shape in one pass: totals, and who would run them and why."""

    op: str
    shape: str
    num_calls: int
    flops: int
    num_bytes: int
    backend: str
    why: str


@dataclass(frozen=True)
class Memory:
    """Bytes that must be free. Peaks count whole tensors between ops, so they are lower bounds."""

    dit_bytes: int
    text_bytes: int
    vae_bytes: int
    forward_peak_bytes: int
    decode_peak_bytes: int

    @property
    def weight_bytes(self) -> int:
        return self.dit_bytes + self.text_bytes + self.vae_bytes

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + max(self.forward_peak_bytes, self.decode_peak_bytes)


@dataclass(frozen=True)
class Plan:
    """One video of `size` (width, height) and `num_frames` on `device`; `forward` is one pass of the DiT."""

    model: str
    size: tuple[int, int]
    num_frames: int
    device: DeviceName
    dtype: str
    num_tokens: int
    num_forwards: int
    forward: tuple[Row, ...]
    decode: tuple[Row, ...]
    memory: Memory
    remarks: tuple[str, ...] = field(default=())

    @property
    def forward_flops(self) -> int:
        return sum(row.flops for row in self.forward)

    @property
    def decode_flops(self) -> int:
        return sum(row.flops for row in self.decode)

    def as_json(self) -> dict[str, Any]:
        totals = {
            "forward_flops": self.forward_flops,
            "decode_flops": self.decode_flops,
            "weight_bytes": self.memory.weight_bytes,
            "total_bytes": self.memory.total_bytes,
        }
        return {**asdict(self), **totals}


def make_plan(
    config: ModelConfig,
    *,
    size: tuple[int, int] | None = None,
    num_frames: int | None = None,
    device: DeviceName = "cpu",
) -> Plan:
    """Traces one DiT forward and one VAE decode of `config` on meta tensors.

    size, num_frames: those of the model's defaults where not given. device: whose kernels to name; it need not be
    here, and then the remarks say that a machine with every backend was assumed.
    Raises: ValueError for a size or a number of frames that the model cannot make.
    """
    size, num_frames = size or config.sampling.size, num_frames or config.sampling.num_frames
    check_size(config, size)
    check_num_frames(config, num_frames)
    is_here = device == "cpu" or torch.cuda.is_available()
    remarks = [] if is_here else [f"no {device} device here: backends are judged as if all of theirs were installed"]
    dtype = WEIGHT_DTYPES[device]
    shape = latent_shape(config, size, num_frames)
    passes = 1 if config.sampling.guidance_scale == 1 else 2
    return Plan(
        model=config.name,
        size=size,
        num_frames=num_frames,
        device=device,
        dtype=str(dtype).removeprefix("torch."),
        num_tokens=num_tokens(config, size, num_frames),
        num_forwards=config.sampling.num_steps * passes,
        forward=tuple(_rows(trace_forward(config, shape, dtype), device, is_here)),
        decode=tuple(_rows(trace_decode(config, shape), device, is_here)),
        memory=estimate_memory(config, size, num_frames, dtype=dtype),
        remarks=tuple(remarks),
    )


def estimate_memory(
    config: ModelConfig, size: tuple[int, int], num_frames: int, *, dtype: torch.dtype, batch: int = 1
) -> Memory:
    """Weights of all networks, and the peaks of a DiT forward over `batch` samples and of decoding one video.

    Decoded frames go straight into the file, so the peak is that of one latent frame of whole frames, whatever the
    length; where that much is not there, tiles need less (`vae_plan`).

    The DiT and the text encoder are held in `dtype`, the VAE in float32.
    """
    shape = latent_shape(config, size, num_frames)
    return Memory(
        dit_bytes=config.num_experts * num_parameters(lambda: DiT(config.dit)) * dtype.itemsize,
        text_bytes=num_parameters(lambda: TextEncoder(config.text)) * dtype.itemsize,
        vae_bytes=num_parameters(lambda: WanVAE(config.vae)) * 4,
        forward_peak_bytes=batch * trace_forward(config, shape, dtype).peak_bytes,
        decode_peak_bytes=trace_decode(config, shape).peak_bytes,
    )


def check_memory(needed: Memory, device: torch.device) -> None:
    """Raises: ValueError where `needed` is more than `device` has free."""
    free = free_bytes(device)
    if free is not None and needed.total_bytes > free:
        raise ValueError(
            f"[memory] {device.type} must have {gigabytes(needed.total_bytes)} free "
            f"({gigabytes(needed.weight_bytes)} of weights), got {gigabytes(free)}; "
            "make the video smaller or shorter, give fewer prompts, or use a smaller model"
        )


def free_bytes(device: torch.device) -> int | None:
    """Memory that can still be had on `device`, None where this system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min((found for found in (_meminfo_bytes(), _cgroup_bytes()) if found is not None), default=None)


def _meminfo_bytes() -> int | None:
    path = Path("/proc/meminfo")
    if not path.is_file():
        return None
    lines = (line.split() for line in path.read_text().splitlines())
    return sum(int(words[1]) * 1024 for words in lines if words[0] in ("MemAvailable:", "SwapFree:"))


def _cgroup_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the container's limit leaves (cgroup v2); the page cache is not counted as used, for it makes way."""
    limit, used, statistics = root / "memory.max", root / "memory.current", root / "memory.stat"
    if not (limit.is_file() and used.is_file() and statistics.is_file()) or limit.read_text().strip() == "max":
        return None
    counts = dict(line.split() for line in statistics.read_text().splitlines())
    cached = int(counts.get("inactive_file", 0)) + int(counts.get("active_file", 0))
    return int(limit.read_text()) - int(used.read_text()) + cached


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def num_parameters(build: Callable[[], nn.Module]) -> int:
    """Parameters of a network that is never allocated."""
    return sum(parameter.numel() for parameter in on_meta(build).parameters())


@cache
def trace_forward(config: ModelConfig, shape: tuple[int, int, int, int], dtype: torch.dtype) -> Trace:
    """One DiT forward over one sample of latents [C, T, Y, X]; all blocks are alike, so two are run."""
    latents = torch.empty(1, config.dit.in_dim, *shape[1:], device="meta")
    timestep = torch.empty(1, device="meta")
    context = torch.empty(1, config.dit.text_len, config.dit.text_dim, device="meta", dtype=dtype)

    def trace_layers(num_layers: int) -> Trace:
        dit = on_meta(lambda: DiT(replace(config.dit, num_layers=num_layers))).to(dtype)
        return trace(lambda: dit(latents, timestep, context))

    # The very first run also builds tables that later ones find in a cache.
    trace_layers(1)
    return extrapolate(trace_layers(1), trace_layers(2), config.dit.num_layers - 1)


@cache
def trace_decode(config: ModelConfig, shape: tuple[int, int, int, int]) -> Trace:
    """Decoding one video from latents [C, T, Y, X], one latent frame at a time.

    The first frame stands alone and the second finds empty caches; from the third on all are alike.
    """
    vae = on_meta(lambda: WanVAE(config.vae))
    num_latents = shape[1]

    def trace_frames(count: int) -> Trace:
        latents = torch.empty(1, shape[0], count, *shape[2:], device="meta")
        return trace(lambda: [None for _ in vae.decode_stream([latents])])

    if num_latents <= 3:
        return trace_frames(num_latents)
    return extrapolate(trace_frames(2), trace_frames(3), num_latents - 2)


def on_meta(build: Callable[[], Network]) -> Network:
    with torch.device("meta"), _NoInitialisation():
        return build().requires_grad_(False).eval()


class _NoInitialisation(TorchFunctionMode):
    """Skips torch.nn.init: on meta tensors it computes nothing and its first call costs a second of imports."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _rows(traced: Trace, device: DeviceName, is_here: bool) -> Iterator[Row]:
    for call in traced.calls.values():
        flops, num_bytes = _room_cost(call) if call.is_room else (call.flops, call.num_bytes)
        backend, why = _explain(call, device, is_here) if call.is_room else ("torch", "left to torch")
        yield Row(call.op, call.shape, call.num_calls, flops, num_bytes, backend, why)


def _room_cost(call: Call) -> tuple[int, int]:
    from wan_kernels.define_op import OPS

    cost = OPS[call.op].cost(*call.args)
    return call.num_calls * cost.flops, call.num_calls * cost.num_bytes


def _explain(call: Call, device: DeviceName, is_here: bool) -> tuple[str, str]:
    """The backend that would run, and why those preferred to it would not."""
    explanation = dispatch.explain(call.op, *call.args, device=device, elsewhere=not is_here)
    refused = "; ".join(f"{name}: {reason}" for name, reason in explanation.refused)
    unopposed = "first choice" if len(dispatch.names(call.op)) > 1 else "the only one"
    return explanation.backend or "none", refused or unopposed
