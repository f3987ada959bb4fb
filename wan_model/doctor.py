"""What this machine can do: versions, processor, GPU, memory, which backends work, which models fit."""

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from typing import Any

import torch

import wan_model
from wan_kernels import dispatch, native
from wan_kernels.machine import device_name
from wan_model.config import PRESETS
from wan_model.plan import WEIGHT_DTYPES, check_memory, estimate_memory, free_bytes
from wan_model.tables import print_table, si
from wan_model.video_io import missing_encoder

PACKAGES = ("torch", "triton", "numpy", "safetensors", "tokenizers", "transformers", "ftfy", "av", "pillow", "rich")


def report() -> dict[str, Any]:
    """Everything below as plain data."""
    return {
        "versions": dict(versions()),
        "machine": dict(machine()),
        "backends": backends(),
        "models": list(models()),
        "video": missing_encoder() or "mp4 (H.264)",
    }


def backends() -> list[dict[str, str | None]]:
    """Every op on every backend; `reason` says why it is a hole, None that it can run."""
    return [{"op": each.op, "backend": each.backend, "reason": each.reason} for each in dispatch.survey()]


def versions() -> Iterator[tuple[str, str]]:
    yield "wan", wan_model.__version__
    yield "python", platform.python_version()
    for name in PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, "not installed"


def machine() -> Iterator[tuple[str, str]]:
    yield "system", f"{platform.system()} {platform.machine()}"
    yield "processor", f"{device_name('cpu')}, {os.cpu_count()} cores, torch uses {torch.get_num_threads()}"
    yield "compiled kernels", native_library()
    free = free_bytes(torch.device("cpu"))
    yield "free memory", si(free, "B") if free is not None else "unknown"
    if not torch.cuda.is_available():
        yield "GPU", f"none ({no_gpu_reason()})"
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        capability = f"sm_{properties.major}{properties.minor}"
        yield f"GPU {index}", f"{properties.name}, {capability}, {si(free, 'B')} of {si(total, 'B')} free"


def no_gpu_reason() -> str:
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    return f"torch is built for CUDA {torch.version.cuda} and sees no device"


def native_library() -> str:
    """What the compiled library holds and which instruction set it chose, or why it cannot be used."""
    reason = native.cpu_unavailable()
    if reason is not None:
        return f"not available: {reason}"
    return f"{native.library().build_info()}; runs with {native.library().cpu_isa()}"


def models() -> Iterator[dict[str, Any]]:
    """What each preset needs at its default size, on the best device here."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = WEIGHT_DTYPES[device.type]
    for config in PRESETS.values():
        defaults = config.sampling
        needed = estimate_memory(config, defaults.size, defaults.num_frames, dtype=dtype)
        try:
            check_memory(needed, device)
            fits = f"fits on this {device.type}"
        except ValueError:
            fits = f"does not fit on this {device.type}"
        yield {
            "model": config.name,
            "task": config.model_type,
            "size": "x".join(map(str, defaults.size)),
            "frames": defaults.num_frames,
            "weight_bytes": needed.weight_bytes,
            "total_bytes": needed.total_bytes,
            "verdict": fits,
        }


def print_backends() -> None:
    """Op x backend, and below it the reason for every hole."""
    standings = dispatch.survey()
    names = list(dict.fromkeys(each.backend for each in standings))
    works = {(each.op, each.backend): each.reason is None for each in standings}
    rows = [[op, *("yes" if works[op, name] else "-" for name in names)] for op in dispatch.ops()]
    print_table("Backends, in order of preference from the left", ["op", *names], rows)
    holes: dict[tuple[str, str], list[str]] = {}
    for each in standings:
        if each.reason is not None:
            holes.setdefault((each.backend, each.reason), []).append(each.op)
    if holes:
        print_table(
            "Why not",
            ["backend", "reason", "ops"],
            [[backend, reason, ", ".join(ops)] for (backend, reason), ops in holes.items()],
        )


def print_report() -> None:
    print_table("Versions", ["package", "version"], list(versions()))
    print_table("Machine", ["what", "found"], list(machine()))
    print_backends()
    print_table(
        "Models at their default size, weights and activations",
        ["model", "task", "size", "frames", "weights", "in all", "verdict"],
        [[si(value, "B") if key.endswith("_bytes") else value for key, value in m.items()] for m in models()],
        right=("frames", "weights", "in all"),
    )
    reason = missing_encoder()
    print(f"Video: {'mp4 (H.264)' if reason is None else f'GIF only: {reason}'}")
