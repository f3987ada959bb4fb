"""WAN_KERNELS_CPU_ISA: what it names runs, with the same results; what cannot run is an error, never something else."""

import os
import subprocess
import sys

import pytest

from wan_kernels import native

pytestmark = pytest.mark.skipif(native.load()[0] is None, reason=f"needs the extension: {native.load()[1]}")

# One kernel of each kind of arithmetic, in every dtype; prints the path and the worst error in units of the tolerance.
PROGRAM = """
import torch, wan_kernels
from wan_kernels import dispatch, native
torch.manual_seed(0)
worst = 0.0
for dtype, allowed in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)):
    x, weight = torch.randn(3, 5, 77).to(dtype), torch.randn(77).to(dtype)
    image = torch.randn(2, 33, 4, 9).to(dtype)
    calls = [
        lambda: wan_kernels.rms_norm(x, weight),
        lambda: wan_kernels.layer_norm_modulate(x, x[:, :1], x[:, 1:2]),
        lambda: wan_kernels.gate_residual_layer_norm_modulate(x, x, None, x[:, :1], x[:, 1:2])[1],
        lambda: wan_kernels.channel_rms_norm_silu(image, torch.linspace(-2, 2, 33).to(dtype)),
    ]
    for call in calls:
        with dispatch.use_backend("cpu"):
            got = call()
        with dispatch.use_backend("reference"):
            wanted = call().double()
        error = (got.double() - wanted).abs().max() / wanted.abs().max()
        worst = max(worst, error.item() / allowed)
q, scale = wan_kernels.quantize_rows(torch.randn(19, 77))
weight, weight_scale = wan_kernels.quantize_rows(torch.randn(61, 77))
codes = lambda: wan_kernels.linear_8bit(q, scale, weight, weight_scale, out_dtype=torch.int8, gelu=True)
exact = lambda: wan_kernels.linear_8bit(q, scale, weight, weight_scale, out_dtype=torch.float32)
for call, allowed in ((codes, 1.5), (exact, 1e-6)):
    with dispatch.use_backend("cpu"):
        got = call()
    with dispatch.use_backend("reference"):
        wanted = call()
    error = (got[0].double() - wanted[0].double()).abs().max() / (1 if call is codes else wanted.abs().max())
    worst = max(worst, error.item() / allowed)
for dtype in (torch.int8, torch.float8_e4m3fn):
    with dispatch.use_backend("cpu"):
        got = wan_kernels.quantize_rows(torch.linspace(-3, 5, 1003), dtype)[0]
    with dispatch.use_backend("reference"):
        wanted = wan_kernels.quantize_rows(torch.linspace(-3, 5, 1003), dtype)[0]
    worst = max(worst, float((got.double() != wanted.double()).sum() > 2))
rows, order = torch.randn(2, 19, 3, 14), dict(is_smooth=True, is_permuted=True)
freqs = [torch.randn(4, pairs, 2) for pairs in (3, 2, 2)]
turned = dict(num_heads=3, grid=(2, 2, 4), tokens_per_scale=5, is_smooth=True)
for call in (
    lambda: wan_kernels.quantize_values(rows, dtype=torch.int8, **order),
    lambda: wan_kernels.quantize_values(rows, dtype=torch.float8_e4m3fn, tokens_per_scale=128),
    lambda: wan_kernels.quantize_heads(rows, tokens_per_scale=5),
    lambda: wan_kernels.quantize_heads(rows.bfloat16(), is_smooth=True),
    lambda: wan_kernels.rms_norm_rope_8bit(rows.flatten(2), torch.ones(42), *freqs, **turned),
):
    with dispatch.use_backend("cpu"):
        got = call()
    with dispatch.use_backend("reference"):
        wanted = call()
    worst = max(worst, float((got[0].double() != wanted[0].double()).sum() > 2))
    worst = max(worst, *(((a - b).abs().max() / b.abs().max()).item() / 1e-5 for a, b in zip(got[1:], wanted[1:])))
heads = lambda *shape: torch.randint(-127, 128, shape, dtype=torch.int8)
scales = lambda *shape: 0.01 + 0.01 * torch.rand(shape)
q, k = ((heads(1, 2, length, 32), scales(1, 2, length), torch.rand(1, 2, 32)) for length in (19, 70))
v = heads(1, 2, 32, 128), scales(1, 2, 1, 32), torch.rand(1, 2, 32)
attend = lambda: wan_kernels.attention_8bit(q, k, v, v_tokens_per_scale=256, out_dtype=torch.float32)
with dispatch.use_backend("cpu"):
    got = attend()
with dispatch.use_backend("reference"):
    wanted = attend()
worst = max(worst, ((got - wanted).abs().max() / wanted.abs().max()).item() / 1e-2)
print(native.library().cpu_isa(), worst)
"""


def run_with(isa: str, program: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"WAN_KERNELS_CPU_ISA": isa, "OMP_NUM_THREADS": "1"}
    environment.pop("WAN_KERNELS_BACKEND", None)
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512", "avx512_bf16"])
def test_forced_isa_is_the_one_that_runs(isa: str) -> None:
    done = run_with(isa, PROGRAM)
    if "can run, it is not" in done.stderr:
        pytest.skip(f"this machine or build has no {isa}")
    assert done.returncode == 0, done.stderr
    ran, worst = done.stdout.split()
    assert ran == isa
    assert float(worst) < 1


def test_unknown_isa_is_an_error() -> None:
    done = run_with("sse9", "from wan_kernels import native; native.library().cpu_isa()")
    assert done.returncode != 0
    assert "WAN_KERNELS_CPU_ISA must be baseline, avx2, avx512 or avx512_bf16, got sse9" in done.stderr


def test_unknown_isa_is_the_reason_why_the_backend_is_unavailable() -> None:
    program = "from wan_kernels import native; print(native.cpu_unavailable())"
    assert "got sse9" in run_with("sse9", program).stdout
