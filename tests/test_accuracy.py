"""What the error columns of a benchmark compare: values, not codes."""

from typing import Any

import pytest
import torch
from torch import Tensor

import wan_kernels  # noqa: F401  (fills the registry)
from wan_kernels import accuracy, dispatch, testing
from wan_kernels.define_op import OPS

CASES = {
    "quantize_rows": "width_127",
    "layer_norm_modulate_8bit": "rows_3",
    "gate_residual_layer_norm_modulate_8bit": "rows_3",
    "linear_8bit": "gelu_quantised",
    "rms_norm_rope_8bit": "padded_127_smooth_64",
    "quantize_values": "tokens_129_gpu",
}


def args_of(op: str) -> tuple[Any, ...]:
    return next(case for case in testing.cases_of(op) if case.name == CASES[op]).args(torch.float32)


def without_codes(op: str, args: tuple[Any, ...]) -> Tensor:
    """The result that the codes of a case stand for."""
    if op == "quantize_rows":
        return args[0]
    if op == "quantize_values":
        return args[0].permute(0, 2, 3, 1)
    if op == "rms_norm_rope_8bit":
        return OPS["rms_norm_rope"].reference.forward(*args[:8]).transpose(1, 2)
    if op == "linear_8bit":
        return OPS[op].reference.forward(*args[:4], torch.float32, *args[5:])[0]
    result = OPS[op.removesuffix("_8bit")].reference.forward(*args[:-1], torch.float32)
    return result[1] if isinstance(result, tuple) else result


@pytest.mark.parametrize("op", CASES)
def test_codes_are_read_as_their_values(op: str) -> None:
    args = args_of(op)
    found, wanted = accuracy.values_of(OPS[op], dispatch.REFERENCE, args), without_codes(op, args)
    assert found.shape == wanted.shape and found.dtype is torch.float32
    sqnr_db = 10 * torch.log10(wanted.square().sum() / (found - wanted).square().sum())
    assert sqnr_db > 30


@pytest.mark.parametrize("op", CASES)
def test_other_codes_for_the_same_values_are_a_small_error(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the codes at twice the scale: as numbers they are off by 50 %, as values by a rounding."""
    first = 1 if op == "gate_residual_layer_norm_modulate_8bit" else 0

    def forward(*args: Any) -> tuple[Tensor, ...]:
        outputs = list(OPS[op].reference.forward(*args))
        outputs[first] = (outputs[first].float() / 2).round().to(outputs[first].dtype)
        outputs[first + 1] = outputs[first + 1] * 2
        return tuple(outputs)

    backends = {name: list(each) for name, each in dispatch._backends.items()}
    monkeypatch.setattr(dispatch, "_backends", backends)
    dispatch.register_backend(op, "halved", forward=forward)
    found = accuracy.errors_of(OPS[op], ["halved", dispatch.REFERENCE], args_of(op))
    assert found.keys() == {"halved"}
    assert 0 < found["halved"]["error_max"] < 0.02
    assert found["halved"]["sqnr_db"] > 25
