"""What a figure was measured on: device, versions, clocks; and the device's stated peaks."""

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Peak:
    """Stated dense peaks: bytes per second from memory, FLOPs per second by dtype."""

    bytes_per_s: float
    flops_per_s: dict[torch.dtype, float]


# NVIDIA H200 and H100 SXM datasheets; float32 without TF32.
HOPPER_FLOPS = {
    torch.int8: 1979e12,
    torch.float8_e4m3fn: 1979e12,
    torch.bfloat16: 989e12,
    torch.float16: 989e12,
    torch.float32: 67e12,
}
PEAKS = {"H200": Peak(4.8e12, HOPPER_FLOPS), "H100": Peak(3.35e12, HOPPER_FLOPS)}


def device_name(device: str) -> str:
    """The GPU's name, or the processor's."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_of(device: str) -> Peak | None:
    """Stated peaks of a GPU we know, None otherwise."""
    name = device_name(device)
    return next((peak for key, peak in PEAKS.items() if key in name), None) if device.startswith("cuda") else None


def commit() -> str | None:
    """The checkout's commit, `+` after it if files other than records differ; None outside a checkout."""
    if not (ROOT / ".git").exists():
        return None
    try:
        head = _output("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
        changes = ("diff", "HEAD", "--name-only", "--", ".", ":!wan_kernels/proven.json", ":!benchmarks/results")
        is_changed = bool(_output("git", "-C", str(ROOT), *changes))
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + "+" * is_changed


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def environment(device: str) -> dict[str, Any]:
    """Device, versions and commit; on a GPU also driver, clocks, power and temperature where NVML is installed."""
    facts: dict[str, Any] = {
        "device": device_name(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "commit": commit(),
    }
    if device.startswith("cuda"):
        facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()} | nvml_state(device)
    else:
        facts |= {
            "num_threads": torch.get_num_threads(),
            "num_cpus": os.cpu_count(),
            "load": round(os.getloadavg()[0], 2),
        }
    return facts


def stamp(device: str) -> dict[str, Any]:
    """The environment by kind, as every row of a benchmark file carries it: device, clocks, power, versions, commit."""
    facts = environment(device)
    clocks = {key: facts.pop(key) for key in list(facts) if key.endswith("_mhz")}
    power = {key: facts.pop(key) for key in list(facts) if key.startswith("power_")}
    name, sha = facts.pop("device"), facts.pop("commit")
    return {"device": name, "clocks": clocks or None, "power": power or None, "versions": facts, "commit": sha}


def nvml_state(device: str) -> dict[str, Any]:
    """Driver, clocks, power and temperature of a GPU; one key with the reason where NVML cannot tell."""
    try:
        import pynvml
    except ImportError as error:
        return {"nvml": f"not installed: {error}"}
    try:
        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        return {
            "driver": pynvml.nvmlSystemGetDriverVersion(),
            "sm_clock_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
            "max_sm_clock_mhz": pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM),
            "memory_clock_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
            "power_w": pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            "power_limit_w": pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000,
            "temperature_c": pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
        }
    except pynvml.NVMLError as error:
        return {"nvml": str(error)}
