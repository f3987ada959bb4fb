"""One forward of a DiT: ours in each precision beside Diffusers', interleaved in one run, random weights.

    python -m benchmarks.bench_dit --tokens 780 3120 --json benchmarks/results/epyc-zen4-2core/dit.json

The 1.3B with fewer layers, so that a laptop can run it; 780 tokens are 9 frames of 416 x 160, with 512 rows of text.
Diffusers reads the text anew in each forward. A sampling run of ours reads it once (`ours`); `ours, text each time`
does the same work as Diffusers.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from wan_kernels import benchmark, machine
from wan_model.config import DiTConfig, get_preset
from wan_model.conversion import diffusers_dit_name
from wan_model.dit import DiT, TextStates
from wan_model.quantize import CODES, PRECISIONS, Precision, dtype_of, quantize, sqnr_db

LATENT_FRAMES = {780: 3, 3120: 12}
ROWS, COLUMNS = 20, 52
Forward = Callable[[], Tensor]


@dataclass(frozen=True)
class Row:
    """Seconds of a forward, and how near its velocity is to our fp32's, in decibels."""

    model: str
    precision: Precision
    num_tokens: int
    num_layers: int
    median_s: float
    p10_s: float
    p90_s: float
    num_runs: int
    sqnr_db: float


def random_dit(config: DiTConfig) -> DiT:
    """The same float32 weights each time, as PyTorch initialises them: nothing is zero, so every layer counts."""
    torch.manual_seed(0)
    return DiT(config).eval()


def inputs(config: DiTConfig, num_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (1, config.in_dim, LATENT_FRAMES[num_tokens], ROWS, COLUMNS)
    context = torch.randn(1, config.text_len, config.text_dim, generator=generator)
    return torch.randn(shape, generator=generator), torch.tensor([500.0]), context


def our_forwards(config: DiTConfig, num_tokens: int) -> Iterator[tuple[str, Precision, Forward]]:
    latents, timestep, context = inputs(config, num_tokens)
    for precision in PRECISIONS:
        if precision == "fp8" and not torch.cuda.is_available():
            continue
        dit = random_dit(config).to(dtype_of(precision))
        if precision in CODES:
            quantize(dit, precision)
        states = dit.read_text(context)

        def forward(dit: DiT = dit, text: Tensor | TextStates = states) -> Tensor:
            return dit(latents, timestep, text)

        yield "ours", precision, forward
        yield "ours, text each time", precision, lambda dit=dit: forward(dit, context)


def diffusers_forwards(config: DiTConfig, num_tokens: int) -> Iterator[tuple[str, Precision, Forward]]:
    import diffusers

    latents, timestep, context = inputs(config, num_tokens)
    weights = {diffusers_dit_name(name): value for name, value in random_dit(config).state_dict().items()}
    for precision in ("fp32", "bf16"):
        dtype = dtype_of(precision)
        twin = diffusers.WanTransformer3DModel(
            patch_size=config.patch_size, num_attention_heads=config.num_heads, attention_head_dim=config.head_dim,
            in_channels=config.in_dim, out_channels=config.out_dim, text_dim=config.text_dim,
            freq_dim=config.freq_dim, ffn_dim=config.ffn_dim, num_layers=config.num_layers, eps=config.eps,
        ).eval().to(dtype)  # fmt: skip
        twin.load_state_dict(weights)

        def forward(twin: torch.nn.Module = twin, dtype: torch.dtype = dtype) -> Tensor:
            return twin(latents.to(dtype), timestep, context.to(dtype), return_dict=False)[0]

        yield "diffusers", precision, forward


@torch.no_grad()
def measure(num_layers: int, num_tokens: int, rounds: int) -> list[Row]:
    config = replace(get_preset("1.3B").dit, num_layers=num_layers)
    forwards = [*our_forwards(config, num_tokens), *diffusers_forwards(config, num_tokens)]
    outputs = [forward() for _, _, forward in forwards]
    times: list[list[float]] = [[] for _ in forwards]
    for number in range(rounds):
        for slot, (_, _, forward) in zip(times, forwards, strict=True):
            start = time.perf_counter()
            forward()
            slot.append(time.perf_counter() - start)
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    rows = []
    for (model, precision, _), seconds, output in zip(forwards, times, outputs, strict=True):
        tenths = statistics.quantiles(seconds, n=10, method="inclusive")
        figures = (statistics.median(seconds), tenths[0], tenths[-1], rounds, sqnr_db(output, outputs[0]))
        rows.append(Row(model, precision, num_tokens, num_layers, *figures))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--tokens", type=int, nargs="+", choices=LATENT_FRAMES, default=[780])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write rows and environment here")
    options = parser.parse_args()
    rows = [row for tokens in options.tokens for row in measure(options.layers, tokens, options.rounds)]
    for row in rows:
        print(f"{row.num_tokens:>5} {row.model:<22}{row.precision:<6}{row.median_s:8.3f} s  {row.sqnr_db:7.1f} dB")
    if options.json:
        record = {"environment": machine.environment("cpu"), "rows": [asdict(row) for row in rows]}
        benchmark.write_json(options.json, record)


if __name__ == "__main__":
    main()
