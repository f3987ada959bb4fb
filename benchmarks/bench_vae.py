"""The VAE at real width beside Diffusers' with the same weights: seconds and memory, in one run.

    python -m benchmarks.bench_vae --frames 9 --json benchmarks/results/epyc-zen4-2core/vae.json

Each contender runs in processes of its own, in turns, so that one's memory is not another's. The peak is that of a
call, weights included, above what the process holds before there is a model (Linux only: it is read from /proc).
`--of ours --frames 17 65` shows whether memory grows with the video.
"""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wan_kernels import benchmark, machine
from wan_model.config import VAEConfig, get_preset
from wan_model.conversion import diffusers_vae_name, write_diffusers_vae
from wan_model.quantize import sqnr_db
from wan_model.vae import WanVAE

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MODELS = ("ours", "diffusers")
DIRECTIONS = ("encode", "decode")


@dataclass(frozen=True)
class Setting:
    model: str
    precision: str
    num_frames: int
    height: int
    width: int


@dataclass(frozen=True)
class Row:
    """Seconds of a call, its peak memory, and how near its result is to our fp32's, in decibels."""

    model: str
    precision: str
    num_frames: int
    height: int
    width: int
    direction: str
    median_s: float
    num_runs: int
    peak_bytes: int
    sqnr_db: float | None


# ---- one process ----


def memory(field: str) -> int:
    """VmRSS, what this process holds, or VmHWM, the most it held."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"[bench] /proc/self/status must have {field}, it has not")


def reset_peak() -> None:
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def vae_config() -> VAEConfig:
    config = get_preset("1.3B").vae
    assert config is not None
    return config


def random_vae(config: VAEConfig) -> WanVAE:
    """The same float32 weights each time, as PyTorch initialises them."""
    torch.manual_seed(0)
    return WanVAE(config).eval()


def twin_of(config: VAEConfig) -> nn.Module:
    import diffusers

    fields = {
        name: list(value) if isinstance(value, tuple) else value for name, value in write_diffusers_vae(config).items()
    }
    twin = diffusers.AutoencoderKLWan(**{name: value for name, value in fields.items() if name[0] != "_"}).eval()
    weights = random_vae(config).state_dict()
    twin.load_state_dict(
        {diffusers_vae_name(name, num_res_blocks=config.num_res_blocks): value for name, value in weights.items()}
    )
    return twin


def calls(setting: Setting, config: VAEConfig) -> dict[str, Callable[[], Tensor]]:
    dtype = DTYPES[setting.precision]
    generator = torch.Generator().manual_seed(1)
    size = (setting.height, setting.width)
    video = torch.rand(1, 3, setting.num_frames, *size, generator=generator) * 2 - 1
    num_latents = 1 + (setting.num_frames - 1) // config.temporal_stride
    small = [side // config.spatial_stride for side in size]
    latents = torch.randn(1, config.z_dim, num_latents, *small, generator=generator)
    if setting.model == "ours":
        ours = random_vae(config).to(dtype)
        return {"encode": lambda: ours.encode(video), "decode": lambda: ours.decode(latents)}
    twin: Any = twin_of(config).to(dtype)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (config.latents_mean, config.latents_std))
    return {
        "encode": lambda: (twin.encode(video.to(dtype)).latent_dist.mode().float() - mean) / std,
        "decode": lambda: twin.decode((latents * std + mean).to(dtype)).sample,
    }


@torch.no_grad()
def run_one(setting: Setting, out: Path) -> None:
    """Seconds and peak of one call in each direction, to standard output; the results to `out`."""
    before = memory("VmRSS")
    found: dict[str, Any] = {}
    results: dict[str, Tensor] = {}
    for direction, call in calls(setting, vae_config()).items():
        reset_peak()
        start = time.perf_counter()
        results[direction] = call().float().contiguous()
        found[direction] = {"seconds": time.perf_counter() - start, "peak_bytes": memory("VmHWM") - before}
    save_file(results, out)
    print(json.dumps(found))


# ---- all of them ----


def measure(settings: list[Setting], rounds: int) -> list[Row]:
    runs: dict[Setting, list[dict[str, Any]]] = {setting: [] for setting in settings}
    with tempfile.TemporaryDirectory() as folder:
        outs = {setting: Path(folder) / f"{i}.safetensors" for i, setting in enumerate(settings)}
        for number in range(rounds):
            for setting in settings:
                command = [sys.executable, "-m", "benchmarks.bench_vae", "--one", json.dumps(asdict(setting))]
                command += ["--out", str(outs[setting])]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ)
                runs[setting].append(json.loads(done.stdout.splitlines()[-1]))
                print(f"round {number + 1}: {setting} {runs[setting][-1]}", file=sys.stderr, flush=True)
        results = {setting: load_file(out) for setting, out in outs.items()}
    return [row_of(setting, direction, runs[setting], results) for setting, direction in product(settings, DIRECTIONS)]


def row_of(
    setting: Setting, direction: str, runs: list[dict[str, Any]], results: dict[Setting, dict[str, Tensor]]
) -> Row:
    ours = Setting("ours", "fp32", setting.num_frames, setting.height, setting.width)
    nearness = None
    if ours in results and ours != setting:
        nearness = sqnr_db(results[setting][direction], results[ours][direction])
    seconds = [run[direction]["seconds"] for run in runs]
    peak = max(run[direction]["peak_bytes"] for run in runs)
    return Row(**asdict(setting), direction=direction, median_s=statistics.median(seconds), num_runs=len(runs),
               peak_bytes=peak, sqnr_db=nearness)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--precision", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--frames", type=int, nargs="+", default=[9])
    parser.add_argument("--size", default="416x240", help="width x height")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write rows and environment here")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return run_one(Setting(**json.loads(options.one)), options.out)
    width, height = map(int, options.size.split("x"))
    chosen = product(options.of, options.precision, options.frames)
    rows = measure([Setting(*names, height, width) for names in chosen], options.rounds)
    for row in rows:
        nearness = "" if row.sqnr_db is None else f"{row.sqnr_db:7.1f} dB"
        print(f"{row.num_frames:>4} {row.model:<10}{row.precision:<5}{row.direction} {row.median_s:8.2f} s "
              f"{row.peak_bytes / 1e9:6.2f} GB {nearness}")  # fmt: skip
    if options.json:
        record = {"environment": machine.environment("cpu"), "rows": [asdict(row) for row in rows]}
        benchmark.write_json(options.json, record)
    return None


if __name__ == "__main__":
    main()
