"""How near 8-bit attention comes to attention in float, to the model of its own arithmetic, and to itself in parts.

Bars of a call: on normal numbers cosine >= 0.9990 and relative L1 <= 0.045; with outliers cosine >= 0.9985; on inputs
like a video model's cosine >= 0.9999 and relative L1 <= 0.012; never above 1.15 times the error of the model; the
log-sum-exp within 1e-3 of what the codes say. They hold for lengths of video: with outliers in 700 keys, exact
attention on codes with a scale for each block of 128 has a cosine of 0.9983 only.
"""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from wan_kernels import dispatch
from wan_kernels.common.triton import is_interpreting
from wan_kernels.define_op import OPS
from wan_kernels.inspect import on_gpu
from wan_kernels.ops.attention_8bit import cases, model, reference
from wan_kernels.ops.attention_8bit.model import Arithmetic

H = 128
BARS = {"normal": (0.9990, 0.045), "outliers": (0.9985, 1.0), "video": (0.9999, 0.012)}


@dataclass(frozen=True)
class Format:
    """What a backend reads, what it then computes, and how far merged parts of the keys may be from the whole, of the
    largest element.
    """

    v_dtype: torch.dtype
    blocks: tuple[int, int, int]
    arithmetic: Arithmetic
    parts: float


# How float8 rounds a probability depends on the largest of the row so far, which parts do not share: 2.2e-3 of the
# largest element was found.
FORMATS = {
    "cpu": Format(torch.int8, (1, 1, 256), Arithmetic(256, "uint8"), parts=2e-3),
    "triton": Format(torch.float8_e4m3fn, (16, 128, 0), Arithmetic(128, "fp8", 13), parts=4e-3),
}
BACKENDS = [each for each in dispatch.names("attention_8bit") if each in FORMATS]


def inputs(family: str, num_queries: int, num_keys: int) -> tuple[Tensor, Tensor, Tensor]:
    """q [1, 1, L, H], k and v [1, 1, S, H]: normal; one in 1000 ten times as wide; keys with an offset of each channel,
    near the queries they belong to, and values with a mean.
    """
    generator = torch.Generator().manual_seed(0)
    q, k, v, extra = (torch.randn(1, 1, num, H, generator=generator) for num in (num_queries, *[num_keys] * 3))
    if family == "outliers":
        q, k, v = (
            each + 10 * each.roll(1, -1) * (torch.rand(each.shape, generator=generator) < 1e-3) for each in (q, k, v)
        )
    if family == "video":
        offset = 8 * extra[:, :, :1] * (torch.arange(H) % 16 == 0)
        q = 0.5 * q + extra[:, :, -num_queries:]
        k = 0.5 * k + extra + offset
        q, k = (each * torch.rsqrt(each.square().mean(-1, keepdim=True)) for each in (q, k))
        v = v + 0.5 * extra[:, :, 1:2]
    return q, k, v


def quantised(q: Tensor, k: Tensor, v: Tensor, form: Format) -> tuple[Any, ...]:
    """The arguments of the op, the mean of k taken off."""
    k_mean, v_mean = k.mean(2), torch.zeros_like(v[:, :, 0])
    q_codes, q_scale = cases.blocked(q, form.blocks[0])
    k_codes, k_scale = cases.blocked(k - k_mean.unsqueeze(2), form.blocks[1])
    v_codes, v_scale = cases.values(v.mT.contiguous(), form.v_dtype, form.blocks[2])
    is_permuted = form.v_dtype is torch.float8_e4m3fn
    codes = q_codes, q_scale, k_codes, k_scale, k_mean, v_codes, v_scale, v_mean
    return *codes, torch.float32, None, None, None, *form.blocks, is_permuted, None


def in_float(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = (q.double() @ k.double().mT * H**-0.5).softmax(-1)
    return (weights @ v.double()).transpose(1, 2)


def run(backend: str, args: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    candidate = dispatch.get("attention_8bit", backend)
    if candidate.unavailable is not None and backend not in dispatch.required():
        pytest.skip(candidate.unavailable)
    with dispatch.use_backend(attention_8bit=backend):
        return OPS["attention_8bit"](*args)


def cosine(got: Tensor, wanted: Tensor) -> float:
    return torch.nn.functional.cosine_similarity(got.double().flatten(), wanted.flatten(), dim=0).item()


def relative_l1(got: Tensor, wanted: Tensor) -> float:
    return ((got.double() - wanted).abs().sum() / wanted.abs().sum()).item()


@pytest.mark.parametrize("family", BARS)
@pytest.mark.parametrize("num_keys", [4096, 32760, 75600])
@pytest.mark.parametrize("backend", BACKENDS)
def test_accuracy(backend: str, num_keys: int, family: str) -> None:
    form = FORMATS[backend]
    q, k, v = inputs(family, 16, num_keys)
    args = quantised(q, k, v, form)
    wanted, by_model = in_float(q, k, v), model.forward(*args, form.arithmetic)[0]
    out, lse = run(backend, args)
    least, most = BARS[family]
    assert cosine(out, wanted) >= least
    assert relative_l1(out, wanted) <= most
    assert relative_l1(out, wanted) <= 1.15 * relative_l1(by_model, wanted)
    assert (lse - reference.forward(*args)[1]).abs().max() <= 1e-3


@pytest.mark.parametrize("family", BARS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_is_its_model(backend: str, family: str) -> None:
    """Not just as good: the same codes of probabilities but for those beside a middle, a tenth of what 8 bits cost."""
    args = quantised(*inputs(family, 40, 1100), FORMATS[backend])
    arithmetic = FORMATS[backend].arithmetic
    if is_interpreting():
        arithmetic = replace(arithmetic, accumulator_bits=None)
    wanted, wanted_lse = model.forward(*args, arithmetic)
    out, lse = run(backend, args)
    assert relative_l1(out, wanted.double()) <= 4e-3
    torch.testing.assert_close(lse, wanted_lse, rtol=0, atol=2e-5)


def part(args: tuple[Any, ...], first: int, last: int) -> tuple[Any, ...]:
    """The call on some of the keys: whole blocks of k's and v's scales."""
    q, q_scale, k, k_scale, k_mean, v, v_scale, v_mean, *rest = args
    _, k_block, v_block = rest[4:7]
    k, k_scale = k[:, :, first:last], k_scale[:, :, first // k_block : -(-last // k_block)]
    v = v[..., first : -(-last // 128) * 128]
    v_scale = v_scale[:, :, first // v_block : -(-last // v_block)] if v_block else v_scale
    return q, q_scale, k.contiguous(), k_scale.contiguous(), k_mean, v.contiguous(), v_scale.contiguous(), v_mean, *rest


@pytest.mark.parametrize("backend", BACKENDS)
def test_parts_merge_to_the_whole(backend: str) -> None:
    """Keys in two halves, the second merged onto the first by the kernel itself."""
    args = quantised(*inputs("video", 33, 700), FORMATS[backend])
    whole, whole_lse = run(backend, args)
    first = run(backend, part(args, 0, 512))
    second = list(part(args, 512, 700))
    second[10:12] = first
    out, lse = run(backend, tuple(second))
    torch.testing.assert_close(out, whole, rtol=0, atol=FORMATS[backend].parts * whole.abs().max().item())
    torch.testing.assert_close(lse, whole_lse, rtol=0, atol=1e-5)


def with_prior(args: tuple[Any, ...], prior_out: Tensor, prior_lse: Tensor) -> tuple[Any, ...]:
    return *args[:10], prior_out, prior_lse, *args[12:]


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_keys_the_prior_stays_as_it_is(backend: str) -> None:
    """To the bit, out of a layout of its own."""
    args = list(quantised(*inputs("normal", 33, 140), FORMATS[backend]))
    args[9] = torch.zeros(1, dtype=torch.int64)
    generator = torch.Generator().manual_seed(1)
    prior_out = torch.randn(1, 1, 33, 2 * H, generator=generator)[..., ::2].transpose(1, 2)
    prior_lse = torch.randn(1, 1, 33, generator=generator)
    out, lse = run(backend, with_prior(tuple(args), prior_out, prior_lse))
    assert torch.equal(out, prior_out)
    assert torch.equal(lse, prior_lse)


@pytest.mark.parametrize("backend", BACKENDS)
def test_codes_may_start_anywhere(backend: str) -> None:
    """Contiguous, but not on 16 bytes."""
    args = list(quantised(*inputs("normal", 5, 140), FORMATS[backend]))
    wanted = run(backend, tuple(args))
    for slot in (0, 2, 5):
        codes = args[slot]
        buffer = torch.empty(codes.numel() + 1, dtype=codes.dtype)
        args[slot] = buffer[1:].view(codes.shape).copy_(codes)
    for got, same in zip(run(backend, tuple(args)), wanted, strict=True):
        assert torch.equal(got, same)


V, V_SCALE, OUT_DTYPE, K_BLOCK, V_BLOCK, IS_PERMUTED, SCALE = 5, 6, 8, 13, 14, 15, 16
REFUSALS: dict[str, dict[int, Any]] = {
    "multiplies float8 values only, got int8": {V: torch.zeros(1, 1, H, 256, dtype=torch.int8)},
    "needs v permuted": {IS_PERMUTED: False},
    "one for each 128 tokens": {V_BLOCK: 128},
    "a scale of k for whole tiles of 128 tokens, got one for each 64": {K_BLOCK: 64},
    "needs a scale of 0 or more, got -0.5": {SCALE: -0.5},
    "has no float64 output": {OUT_DTYPE: torch.float64},
    "has kernels for heads of 64 and 128, got 96": {0: torch.zeros(1, 1, 5, 96, dtype=torch.int8)},
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_triton_says_what_it_does_not_take(reason: str) -> None:
    triton = dispatch.get("attention_8bit", "triton")
    if triton.unavailable is not None:
        pytest.skip(triton.unavailable)
    args = list(quantised(*inputs("normal", 5, 140), FORMATS["triton"]))
    assert triton.reject(*args) is None
    for slot, value in REFUSALS[reason].items():
        args[slot] = value
    assert reason in str(triton.reject(*args))


@pytest.mark.parametrize("reason", REFUSALS)
def test_cuda_says_what_it_does_not_take(reason: str) -> None:
    """On tensors that only claim to be on a GPU: the kernel's own words where they differ from triton's."""
    args = list(quantised(*inputs("normal", 5, 140), FORMATS["triton"]))
    cuda = dispatch.get("attention_8bit", "cuda")
    assert cuda.reject(*args) == "needs tensors on CUDA, got cpu"
    wanted = {**dict(enumerate(args)), **REFUSALS[reason]}
    with FakeTensorMode():
        assert cuda.reject(*map(on_gpu, args)) is None
        found = cuda.reject(*(on_gpu(wanted[slot]) for slot in range(len(args))))
    assert reason.replace("has kernels for heads of 64 and 128", "has a kernel for heads of 128") in str(found)
