"""What 8-bit attention does to pictures: the same generations with and without it, step by step, against float32.

    python -m benchmarks.attention_check --json benchmarks/results/attention_check.json

Variants: `fp32` is the truth; `fp32+attention` has attention alone on codes; `bf16` and `int8` are as `wan generate`
makes them, `int8` with attention left in bfloat16; `int8+attention` is `--precision int8`. Prompts, scenes and eyes are
those of `prompt_control`.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import wan_kernels as wk
import wan_model.dit
from benchmarks.prompt_control import BATCH, Record, expected, held_out, psnr_db, rates
from benchmarks.vision import look
from wan_kernels.attention_format import attention_format
from wan_model.pipeline import Pipeline, StepInfo, generate, load_pipeline
from wan_model.quantize import quantize
from wan_model.video_io import atomic_path, read_video

TRUTH = "fp32"


@contextmanager
def attention_on_codes() -> Iterator[None]:
    """The DiT's attention in 8 bits, everything else as it was. Patches the name in `dit.py`: the VAE keeps its own."""

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        form = attention_format(q.device)
        return wk.attention_8bit(*wk.quantize_qkv(q, k, v, form), **form.options, out_dtype=q.dtype)

    with mock.patch.object(wan_model.dit, "wk", SimpleNamespace(**{**vars(wk), "attention": attention})):
        yield


def int8(model: str, has_8bit_attention: bool) -> Pipeline:
    pipeline = load_pipeline(model, precision="bf16")
    for dit in pipeline.dits:
        quantize(dit, "int8", has_8bit_attention=has_8bit_attention)
    return replace(pipeline, precision="int8")


@dataclass(frozen=True)
class Variant:
    """How a pipeline is loaded, and what holds while it runs."""

    load: Callable[[str], Pipeline]
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


VARIANTS = {
    TRUTH: Variant(lambda model: load_pipeline(model, precision="fp32")),
    "fp32+attention": Variant(lambda model: load_pipeline(model, precision="fp32"), attention_on_codes),
    "bf16": Variant(lambda model: load_pipeline(model, precision="bf16")),
    "int8": Variant(lambda model: int8(model, False)),
    "int8+attention": Variant(lambda model: int8(model, True)),
}


@dataclass
class Run:
    """All prompts of one variant: for each step the latents that the model saw, [prompts, ...], and what was seen."""

    steps: list[list[Tensor]] = field(default_factory=list)
    ends: list[Tensor] = field(default_factory=list)
    rows: list[Record] = field(default_factory=list)

    def latents(self) -> list[Tensor]:
        """After each step: what the next one sees, and at last the clean latents."""
        seen = [torch.cat(batches) for batches in self.steps]
        return [*seen[1:], torch.cat(self.ends)]


def run(variant: Variant, model: str, count: int, seed: int) -> Run:
    pipeline = variant.load(model)
    scenes, prompts = held_out(count)
    done = Run([[] for _ in range(pipeline.config.sampling.num_steps)])

    def keep(info: StepInfo) -> None:
        done.steps[info.step - 1].append(info.latents_BCTYX.cpu())
        if info.step == info.num_steps:
            done.ends.append(info.denoised_BCTYX.cpu())

    with tempfile.TemporaryDirectory() as folder, variant.around():
        for start in range(0, count, BATCH):
            batch = prompts[start : start + BATCH]
            result = generate(pipeline, batch, seed=[seed + start + i for i in range(len(batch))], callback=keep)
            for i, saved in enumerate(result.save(Path(folder) / f"{start}.mp4")):
                wanted, seen = expected(scenes[start + i]), look(read_video(saved.video))
                done.rows.append({"prompt": batch[i], "wanted": asdict(wanted), "seen": asdict(seen)})
    return done


def relative_l2(got: Tensor, wanted: Tensor) -> list[float]:
    """Of each sample."""
    noise, signal = ((x.flatten(1)).norm(dim=1) for x in (got - wanted, wanted))
    return (noise / signal).tolist()


def median(values: list[float]) -> float:
    return torch.tensor(values).median().item()


def figures(found: Run, truth: Run) -> Record:
    """Medians over prompts. The curve has an entry for each step: the latents after it."""
    pairs = list(zip(found.latents(), truth.latents(), strict=True))
    return {
        "rates": rates(found.rows),
        "latent_psnr_db": round(median(psnr_db(*pairs[-1])), 2),
        "latent_psnr_db_least": round(min(psnr_db(*pairs[-1])), 2),
        "relative_l2_by_step": [float(f"{median(relative_l2(*pair)):.4g}") for pair in pairs],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="tiny, or a model directory that knows the tiny world")
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variant", choices=list(VARIANTS)[1:], action="append", help="all where none is given")
    parser.add_argument("--json", type=Path, help="write figures here")
    options = parser.parse_args()
    truth = run(VARIANTS[TRUTH], options.model, options.prompts, options.seed)
    found: dict[str, Record] = {TRUTH: {"rates": rates(truth.rows)}}
    print(f"{TRUTH:<16}", *(f"{name} {value:.1%}" for name, value in rates(truth.rows).items()), flush=True)
    for name in options.variant or list(VARIANTS)[1:]:
        found[name] = figures(run(VARIANTS[name], options.model, options.prompts, options.seed), truth)
        print(f"{name:<16}", *(f"{key} {value:.1%}" for key, value in found[name]["rates"].items()))
        curve = found[name]["relative_l2_by_step"]
        steps = range(0, len(curve), max(1, len(curve) // 4))
        errors = ", ".join(f"{curve[i]:.1e} after step {i + 1}" for i in (*steps, len(curve) - 1))
        print(f"{'':<16} latent PSNR {found[name]['latent_psnr_db']} dB, relative L2 {errors}", flush=True)
    if options.json:
        shared = {"model": options.model, "torch": torch.__version__, "seed": options.seed, "prompts": options.prompts}
        with atomic_path(options.json) as path:
            path.write_text(json.dumps({**shared, "against": TRUTH, "variants": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
