"""What is special to merge_attention: it undoes a split of the keys, in any order, and knows parts without keys."""

import itertools
import re

import pytest
import torch
from torch import Tensor

import wan_kernels as wk
from wan_kernels import dispatch
from wan_kernels.common import triton

EMPTY, FULL, NAN = float("-inf"), float("inf"), float("nan")
Part = tuple[Tensor, Tensor]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def part(seed: int, lse: float | None = None) -> Part:
    """One part of [2, 5, 3, 16], its log-sum-exps normal or all of one value."""
    return normal(2, 5, 3, 16, seed=seed), normal(2, 3, 5, seed=seed + 9) if lse is None else torch.full((2, 3, 5), lse)


def same_bits(x: Tensor, y: Tensor) -> bool:
    return torch.equal(x.view(torch.int32), y.view(torch.int32))


@pytest.fixture(params=["reference", "cpu", "triton"])
def backend(request: pytest.FixtureRequest):
    if request.param == "triton" and not triton.is_interpreting():
        pytest.skip("a GPU is here: kernels are compiled for it, and nothing is interpreted")
    if (reason := dispatch.get("merge_attention", request.param).unavailable) is not None:
        pytest.skip(reason)
    with dispatch.use_backend(merge_attention=request.param):
        yield request.param


def test_merging_undoes_a_split_of_the_keys(backend: str) -> None:
    q, k, v = (normal(2, length, 3, 16, seed=seed) for seed, length in enumerate((7, 29, 29)))
    pieces = (slice(0, 4), slice(4, 5), slice(5, 29))
    out, lse = wk.attention(q, k[:, pieces[0]], v[:, pieces[0]], return_lse=True)
    for piece in pieces[1:]:
        out, lse = wk.merge_attention(out, lse, *wk.attention(q, k[:, piece], v[:, piece], return_lse=True))
    wanted, wanted_lse = wk.attention(q, k, v, return_lse=True)
    torch.testing.assert_close(out, wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(lse, wanted_lse, rtol=0, atol=1e-6)


def test_gradients_of_a_split_are_those_of_one_call() -> None:
    q, k, v = (normal(1, length, 2, 8, seed=seed).double() for seed, length in enumerate((5, 9, 9)))
    sources = [each.requires_grad_() for each in (q, k, v)]
    parts = [wk.attention(q, k[:, rows], v[:, rows], return_lse=True) for rows in (slice(0, 6), slice(6, 9))]
    merged = wk.merge_attention(*parts[0], *parts[1])
    cotangents = [normal(*each.shape, seed=7).double() for each in merged]
    found = torch.autograd.grad(merged, sources, cotangents)
    wanted = torch.autograd.grad(wk.attention(q, k, v, return_lse=True), sources, cotangents)
    for got, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, right, rtol=0, atol=1e-12)


@pytest.mark.parametrize("center", [0.0, 1e4, -1e4])
def test_any_order_gives_the_same(backend: str, center: float) -> None:
    parts = [(out, lse + center) for out, lse in (part(seed) for seed in range(3))]
    wide = [[each.double() for each in one] for one in parts]
    lse = torch.stack([one[1] for one in wide]).logsumexp(0)
    out = sum(x * (each - lse).exp().mT.unsqueeze(-1) for x, each in wide)
    # The float32 log-sum-exp of two parts is off by half a unit in its last place, and so are weights made from it.
    atol = 1e-6 + 2 * torch.finfo(torch.float32).eps * abs(center)
    for first, second, third in itertools.permutations(parts):
        found = wk.merge_attention(*wk.merge_attention(*first, *second), *third)
        torch.testing.assert_close(found[0].double(), out, rtol=0, atol=atol)
        torch.testing.assert_close(found[1].double(), lse, rtol=0, atol=atol)


@pytest.mark.parametrize("garbage", [NAN, FULL, 3.0])
def test_a_part_without_keys_changes_no_bit(backend: str, garbage: float) -> None:
    out, lse = part(0)
    out[0, 0, 0, :4] = torch.tensor([-0.0, 1e-42, NAN, EMPTY])
    lse[0, 1, :3] = torch.tensor([-0.0, NAN, FULL])
    empty = torch.full_like(out, garbage), torch.full_like(lse, EMPTY)
    for found in (wk.merge_attention(out, lse, *empty), wk.merge_attention(*empty, out, lse)):
        assert same_bits(found[0], out) and same_bits(found[1], lse)


def test_two_parts_without_keys_make_another(backend: str) -> None:
    empty = torch.full((2, 5, 3, 16), NAN, requires_grad=True), torch.full((2, 3, 5), EMPTY, requires_grad=True)
    out, lse = wk.merge_attention(*empty, *empty)
    assert same_bits(out, torch.zeros_like(out)) and (lse == EMPTY).all()
    for grad in torch.autograd.grad((out, lse), empty, (torch.ones_like(out), torch.ones_like(lse))):
        assert not grad.any()


def test_infinite_and_nan_log_sum_exps(backend: str) -> None:
    (a, lse_a), (b, lse_b) = part(0, 0.0), part(1, 0.0)
    lse_a[0, 0], lse_b[0, 1] = FULL, FULL  # heads 0 and 1: all the weight to one part
    lse_a[0, 2], lse_b[0, 2] = FULL, FULL  # head 2: nobody can say
    lse_a[1, 0, 0] = NAN
    out, lse = wk.merge_attention(a, lse_a, b, lse_b)
    assert torch.equal(out[0, :, 0], a[0, :, 0]) and torch.equal(out[0, :, 1], b[0, :, 1])
    assert out[0, :, 2].isnan().all() and (lse[0] == FULL).all()
    assert out[1, 0, 0].isnan().all() and lse[1, 0, 0].isnan()
    assert out[1, 0, 1:].isfinite().all() and out[1, 1:].isfinite().all() and lse.isnan().sum() == 1


def test_a_nan_stays_in_its_element(backend: str) -> None:
    (a, lse_a), (b, lse_b) = part(0), part(1)
    b[1, 2, 1, 5] = NAN
    assert wk.merge_attention(a, lse_a, b, lse_b)[0].isnan().sum() == 1


def test_weights_keep_their_sum_where_the_log_sum_exp_is_large(backend: str) -> None:
    ones = torch.ones(1, 64, 1, 8)
    lse = 1e4 + normal(2, 1, 1, 64)
    torch.testing.assert_close(wk.merge_attention(ones, lse[0], ones, lse[1])[0], ones, rtol=0, atol=3e-7)


def test_a_float32_sum_keeps_what_bfloat16_would_lose() -> None:
    out_a, lse = torch.full((1, 1, 1, 8), 256.0), torch.zeros(1, 1, 1)
    out, _ = wk.merge_attention(out_a, lse, torch.full((1, 1, 1, 8), 255.0).bfloat16(), lse)
    assert out.dtype is torch.float32 and torch.equal(out, torch.full((1, 1, 1, 8), 255.5))


def test_the_gradient_through_the_log_sum_exp_alone(backend: str) -> None:
    (a, lse_a), (b, lse_b) = part(0), part(1)
    sources = [each.requires_grad_() for each in (a, lse_a, b, lse_b)]
    grads = torch.autograd.grad(wk.merge_attention(*sources)[1].sum(), sources, materialize_grads=True)
    assert not grads[0].any() and not grads[2].any()
    torch.testing.assert_close(grads[1], torch.sigmoid(lse_a - lse_b))
    torch.testing.assert_close(grads[1] + grads[3], torch.ones_like(lse_a))


@pytest.mark.parametrize("asked", range(4))
def test_one_gradient_alone(backend: str, asked: int) -> None:
    args = [each.requires_grad_() for each in (*part(0), *part(1))]
    outputs = wk.merge_attention(*args)
    cotangents = [normal(*each.shape, seed=5) for each in outputs]
    every = torch.autograd.grad(outputs, args, cotangents)
    frozen = [each if slot == asked else each.detach() for slot, each in enumerate(args)]
    (alone,) = torch.autograd.grad(wk.merge_attention(*frozen), frozen[asked], cotangents)
    assert torch.equal(alone, every[asked])


X, LSE = torch.ones(2, 5, 3, 8), torch.ones(2, 3, 5)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((X[0], LSE, X[0], LSE), ValueError, "out_a must be [B, L, N, H], got shape (5, 3, 8)"),
        ((X, LSE, X[:, :2], LSE), ValueError, "out_b must have shape (2, 5, 3, 8), got (2, 2, 3, 8)"),
        ((X, LSE.mT, X, LSE), ValueError, "lse_a must have shape (2, 3, 5), got (2, 5, 3)"),
        ((X, LSE, X, LSE[..., None]), ValueError, "lse_b must have shape (2, 3, 5), got (2, 3, 5, 1)"),
        ((X, LSE, X.long(), LSE), TypeError, "out_b must be one of float32"),
        ((X, LSE.bfloat16(), X, LSE), TypeError, "lse_a must be float32 for out_a's type, got bfloat16"),
        ((X.double(), LSE, X, LSE), TypeError, "lse_a must be float64 for out_a's type, got float32"),
        ((X, LSE, X, LSE.to("meta")), ValueError, "lse_b must be on out_a's device cpu, got meta"),
    ],
)
def test_refuses(args, error, message) -> None:
    with pytest.raises(error, match=re.escape(f"[merge_attention] {message}")):
        wk.merge_attention(*args)
