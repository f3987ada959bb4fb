"""What the conformance suite does not ask of the triton backends: that they stay aside, and that the interpreter that
runs them here can be believed.
"""

import importlib
import re
import subprocess
import sys
from types import ModuleType

import pytest
import torch

import wan_kernels as wk
from wan_kernels import dispatch, testing
from wan_kernels.benchmark import differentiable_slots
from wan_kernels.common import triton as common
from wan_kernels.common import triton_sums
from wan_kernels.define_op import OPS

TRITON_OPS = [op for op in dispatch.ops() if "triton" in dispatch.names(op)]
BLOCKED = """
import sys
sys.modules["triton"] = None
import wan_kernels
from wan_kernels import dispatch
print(dispatch.get("linear_8bit", "triton").unavailable)
"""

needs_interpreter = pytest.mark.skipif(
    not common.is_interpreting(), reason="a GPU is here: kernels are compiled for it, and nothing is interpreted"
)


@pytest.mark.parametrize("op", TRITON_OPS)
def test_is_never_chosen_without_a_record(op: str) -> None:
    case = next(case for case in testing.cases_of(op) if not case.is_heavy)
    explanation = dispatch.explain(op, *case.args(torch.float32))
    assert explanation.backend != "triton"
    assert dict(explanation.refused).get("triton", "experimental").startswith("experimental")


@pytest.mark.parametrize("interpret", ["0", "1"])
def test_the_library_needs_no_triton(interpret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", interpret)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("triton does not import" if interpret == "1" else "torch sees no CUDA device") in done.stdout


# What sums over tokens: each has a case with several modulation rows, samples or rows to a program.
SUMS = {
    "rms_norm": "tokens_7_14B",
    "layer_norm_modulate": "rows_3_int64_affine",
    "gate_residual": "rows_3",
    "rms_norm_rope": "padded_127",
    "channel_rms_norm_silu": "frame_384_channels_last",
}


@needs_interpreter
@pytest.mark.parametrize("op", SUMS)
def test_few_programs_sum_what_many_do(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small cases have but the least tokens to a program; here spans are long and meet several modulation rows."""
    monkeypatch.setattr(triton_sums, "MIN_SPAN", 13)
    case = next(case for case in testing.cases_of(op) if case.name == SUMS[op])
    testing.check(op, "triton", case, torch.float32)


@pytest.mark.parametrize("op", SUMS)
def test_only_the_gradients_asked_for_are_prepared(op: str) -> None:
    backend = importlib.import_module(f"wan_kernels.ops.{op}.backend_triton")
    case = next(case for case in testing.cases_of(op) if case.name == SUMS[op])
    args = case.args(torch.float32)
    outputs, _ = backend.prepare(*args)
    slots = OPS[op].tensor_slots
    for asked in differentiable_slots(OPS[op], args):
        needed = tuple(slot == asked for slot in slots)
        found, launches = backend.prepare_backward((outputs,), args, (outputs,), needed)
        is_by_token = OPS[op].parameters[asked] in ("x", "y")
        assert [gradient is not None for gradient in found] == list(needed)
        assert sum(launch.kernel == "sum_slots_kernel" for launch in launches) == (not is_by_token)


@pytest.fixture
def kernels() -> ModuleType:
    return importlib.import_module("triton_test_kernels")


@needs_interpreter
def test_casts_round_and_saturate_as_the_gpu_does(kernels: ModuleType) -> None:
    torch.manual_seed(0)
    extremes = torch.tensor([500.0, -1e30, float("inf"), 0.1238, 448.0, 464.0, 2.0**-9, 2.0**-10, 3 * 2.0**-11, 0.0])
    x = torch.cat([extremes, torch.randn(4086) * torch.logspace(-4, 3, 4086)])
    for dtype in (torch.float8_e4m3fn, torch.bfloat16, torch.float16):
        most = torch.finfo(dtype).max
        wanted = (x.clamp(-most, most) if dtype.itemsize == 1 else x).to(dtype)
        got = torch.empty(x.shape, dtype=dtype)
        kernels.cast_kernel[(1,)](x, got, SIZE=4096)
        assert torch.equal(got.float(), wanted.float())


@needs_interpreter
@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.bfloat16, torch.float16])
def test_dots_multiply_values(dtype: torch.dtype, kernels: ModuleType) -> None:
    torch.manual_seed(0)
    a, b = ((torch.randn(32, 32) * 40).clamp(-127, 127).to(dtype) for _ in range(2))
    got = torch.empty(32, 32, dtype=torch.int32 if dtype is torch.int8 else torch.float32)
    kernels.dot_kernel[(1,)](a, b, got, SIZE=32)
    torch.testing.assert_close(got.double(), a.double() @ b.double().T, rtol=1e-5, atol=1e-2)


@needs_interpreter
def test_multiply_adds_round_once(kernels: ModuleType) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(4096), torch.randn(4096)
    got = torch.empty(4096)
    kernels.fma_kernel[(1,)](x, y, -(x * y), got, SIZE=4096)
    assert got.any()
    assert torch.equal(got, (x.double() * y.double() - (x * y).double()).float())


@needs_interpreter
@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_linear_takes_rows_the_copy_engine_cannot_read(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(-99, 99, (7, 50), generator=generator).to(torch.int8)
    x = base[1:, 1:49].to(torch.int8) if dtype is torch.int8 else base.float().to(dtype)[1:, 1:49]
    weight = torch.randint(-99, 99, (33, 48), generator=generator).to(dtype)
    scales = torch.rand(6, generator=generator), torch.rand(33, generator=generator)
    wanted = wk.linear_8bit(x.contiguous(), scales[0], weight, scales[1], out_dtype=torch.float32)
    with dispatch.use_backend(linear_8bit="triton"):
        got = wk.linear_8bit(x, scales[0], weight, scales[1], out_dtype=torch.float32)
    torch.testing.assert_close(got, wanted)


def attention_inputs(dtype: torch.dtype = torch.float16, width: int = 16) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, length, 2, width) for length in (140, 150, 150))
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
    out, lse = wk.attention(q, k, v, k_lengths=torch.tensor([150, 130]), return_lse=True)
    return out, lse, *torch.autograd.grad(out.float().sum() + lse.sin().sum(), (q, k, v))


@needs_interpreter
def test_attention_gives_the_same_bits_each_time() -> None:
    inputs = attention_inputs()
    with dispatch.use_backend(attention="triton"):
        assert all(map(torch.equal, attend(*inputs), attend(*inputs)))


@needs_interpreter
def test_attention_compiles_whole_in_16_bits() -> None:
    """What the conformance suite asks in float32, which this backend refuses."""
    inputs = attention_inputs()

    def call(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return wk.attention(*tensors, return_lse=True)

    torch.compiler.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    with dispatch.use_backend(attention="triton"):
        found, wanted = compiled(*inputs), call(*inputs)
        grads = [torch.autograd.grad(out.float().sum() + lse.sum(), inputs) for out, lse in (found, wanted)]
    assert all(map(torch.equal, found, wanted)) and all(map(torch.equal, *grads))


@needs_interpreter
@pytest.mark.parametrize(
    ("dtype", "width", "scale", "reason"),
    [
        (torch.float32, 64, None, "multiplies 16-bit floats, not float32"),
        (torch.bfloat16, 384, None, "head width must be at most 128, got 384"),
        (torch.bfloat16, 12, None, "wants rows of a multiple of 16 bytes, got 24"),
        (torch.bfloat16, 64, -1.0, "scale must be positive, got -1.0"),
    ],
)
def test_attention_says_what_it_does_not_take(dtype: torch.dtype, width: int, scale: float | None, reason: str) -> None:
    q, k, v = attention_inputs(dtype, width)
    assert reason in dispatch.get("attention", "triton").reject(q, k, v, None, scale)
    with dispatch.use_backend(attention="triton"), pytest.raises(RuntimeError, match=re.escape(reason)):
        wk.attention(q, k, v, scale=scale)


@needs_interpreter
def test_attention_skips_keys_at_minus_infinity() -> None:
    """A whole first tile of them: the peak has to stay finite."""
    q, k, v = (each.detach().abs() for each in attention_inputs())
    k[:, :130] = -float("inf")
    with dispatch.use_backend(attention="triton"):
        out, lse = wk.attention(q, k, v, return_lse=True)
        wanted, wanted_lse = wk.attention(q, k[:, 130:], v[:, 130:], return_lse=True)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(lse, wanted_lse)


@needs_interpreter
def test_attention_takes_rows_the_copy_engine_cannot_read() -> None:
    base = torch.randn(2, 9, 3, 20, generator=torch.Generator().manual_seed(0)).half()
    odd = base[..., 1:17]
    with dispatch.use_backend(attention="triton"):
        assert torch.equal(wk.attention(odd, odd, odd), wk.attention(*[odd.contiguous()] * 3))
