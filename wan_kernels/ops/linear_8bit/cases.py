"""Real shapes of Wan, odd shapes, extremes."""

from typing import Any, Literal

import torch

from wan_kernels.common.case import Build, Case, Inputs
from wan_kernels.common.quantize import quantize
from wan_kernels.ops.linear_8bit.packing import pack

INT8, FP8 = torch.int8, torch.float8_e4m3fn
Epilogue = Literal["none", "bias", "gelu", "add", "gate", "gate_rows"]


def product(
    leading: tuple[int, ...],
    width: int,
    num_columns: int,
    *,
    ends: Epilogue = "bias",
    dtype: torch.dtype = INT8,
    out_dtype: torch.dtype | None = None,
    outlier: float | None = None,
    is_packed: bool = False,
    fast_accum: bool = False,
    stream_dtype: torch.dtype | None = None,
) -> Build:
    """Rows and weights quantised from normal values; out_dtype None: the residual's, which has the activations'
    unless stream_dtype says otherwise.
    """

    def build(make: Inputs) -> tuple[Any, ...]:
        values = make.normal(*leading, width, dtype=torch.float32)
        if outlier is not None:
            values.view(-1, width)[0, width // 2] = outlier
        x, x_scale = quantize(values, dtype)
        weight, weight_scale = quantize(make.normal(num_columns, width, dtype=torch.float32, scale=width**-0.5), dtype)
        weight = pack(weight) if is_packed else weight
        bias = None if ends == "none" else make.normal(num_columns)
        residual = None
        if ends in ("add", "gate", "gate_rows"):
            residual = make.normal(*leading, num_columns, dtype=stream_dtype)
        num_rows = 3 if ends == "gate_rows" else 1
        gate = index = None
        if ends.startswith("gate"):
            gate = make.normal(leading[0], num_rows, num_columns, dtype=torch.float32)
        if num_rows > 1:
            index = make.integers(*leading, high=num_rows)
        result = out_dtype or stream_dtype or make.dtype
        return x, x_scale, weight, weight_scale, result, bias, residual, gate, index, ends == "gelu", fast_accum

    return build


def strange_scales(*values: float) -> Build:
    """Scales that no quantiser makes: the first rows' and the first columns'."""

    def build(make: Inputs) -> tuple[Any, ...]:
        args = list(product((2, 9), 64, 32, out_dtype=torch.float32)(make))
        for scale in (args[1].view(-1), args[3]):
            for i, value in enumerate(values):
                scale[i] = value
        return tuple(args)

    return build


def strided(make: Inputs) -> tuple[Any, ...]:
    x, x_scale, *rest = product((2, 10), 192, 40, ends="bias")(make)
    wide = x.repeat(1, 2, 2)[:, ::2, :192]
    return wide, x_scale.repeat(1, 2)[:, ::2], *rest


FP32 = torch.float32  # the residual stream's dtype in the model

CASES = (
    Case("ffn_up_1.3B", product((1, 2048), 1536, 8960, ends="gelu"), is_heavy=True),
    Case("ffn_up_packed_1.3B", product((1, 2048), 1536, 8960, ends="gelu", is_packed=True), is_heavy=True),
    Case("ffn_down_packed_1.3B", product((1, 2048), 8960, 1536, ends="gelu", is_packed=True), is_heavy=True),
    Case("qkv_480p_1.3B", product((1, 32760), 1536, 4608), is_heavy=True),
    Case("qkv_480p_14B_fp8", product((1, 32760), 5120, 15360, dtype=FP8), is_heavy=True),
    Case("qkv_720p_14B_fp8", product((1, 75600), 5120, 15360, dtype=FP8), is_heavy=True),
    Case("out_720p_14B_fp8", product((1, 75600), 5120, 5120, ends="gate", dtype=FP8, stream_dtype=FP32), is_heavy=True),
    Case("ffn_up_720p_14B_fp8", product((1, 75600), 5120, 13824, ends="gelu", dtype=FP8), is_heavy=True),
    Case(
        "ffn_down_720p_14B_fp8",
        product((1, 75600), 13824, 5120, ends="gate", dtype=FP8, stream_dtype=FP32),
        is_heavy=True,
    ),
    Case("ffn_up_720p_14B", product((1, 75600), 5120, 13824, ends="gelu"), is_heavy=True),
    Case("ffn_down_720p_14B", product((1, 75600), 13824, 5120, ends="gate", stream_dtype=FP32), is_heavy=True),
    Case(
        "ffn_up_720p_14B_fp8_fast",
        product((1, 75600), 5120, 13824, ends="gelu", dtype=FP8, out_dtype=FP8, fast_accum=True),
        is_heavy=True,
    ),
    Case(
        "ffn_down_720p_14B_fp8_fast",
        product((1, 75600), 13824, 5120, ends="gate", dtype=FP8, fast_accum=True, stream_dtype=FP32),
        is_heavy=True,
    ),
    Case(
        "ffn_down_720p_121f_5B_per_token",
        product((1, 27280), 14336, 3072, ends="gate_rows", stream_dtype=FP32),
        is_heavy=True,
    ),
    Case(
        "ffn_down_720p_121f_5B_fp8_per_token",
        product((1, 27280), 14336, 3072, ends="gate_rows", dtype=FP8, stream_dtype=FP32),
        is_heavy=True,
    ),
    Case("tokens_127_1.3B", product((1, 127), 1536, 192)),
    Case("long_sum", product((3,), 8960, 48, ends="none")),
    Case("tokens_7_fp8", product((2, 7), 512, 96, dtype=FP8)),
    Case("gelu", product((2, 33), 128, 80, ends="gelu")),
    Case("gelu_fp8", product((2, 33), 128, 80, ends="gelu", dtype=FP8)),
    Case("gelu_quantised", product((2, 33), 128, 80, ends="gelu", out_dtype=INT8)),
    Case("quantised_to_fp8", product((5,), 64, 70, out_dtype=FP8)),
    Case("add", product((2, 9), 96, 64, ends="add")),
    Case("gate", product((2, 9), 96, 64, ends="gate")),
    Case("gate_fp8", product((2, 9), 96, 64, ends="gate", dtype=FP8)),
    Case("gate_rows_3", product((2, 17), 96, 65, ends="gate_rows")),
    Case("gate_several_tiles", product((1, 140), 144, 300, ends="gate")),
    Case("gate_rows_several_tiles_fp8", product((2, 140), 400, 300, ends="gate_rows", dtype=FP8)),
    Case("gelu_several_tiles_fp8_fast", product((2, 70), 400, 300, ends="gelu", dtype=FP8, fast_accum=True)),
    Case("odd_sides", product((3, 5), 127, 61)),
    Case("odd_sides_fp8", product((3, 5), 127, 61, dtype=FP8)),
    Case("packed", product((2, 19), 127, 61, is_packed=True)),
    Case("packed_gate_rows_3", product((2, 17), 96, 65, ends="gate_rows", is_packed=True)),
    Case("packed_many_columns", product((201,), 64, 400, ends="gelu", out_dtype=INT8, is_packed=True)),
    Case("one_by_one", product((1,), 1, 1)),
    Case("one_row", product((1, 1), 64, 33, ends="gelu")),
    Case("empty", product((2, 0), 64, 32)),
    Case("strided", strided),
    Case("one_huge", product((2, 9), 96, 64, outlier=1e6)),
    Case("scales_zero", strange_scales(0.0, 0.0)),
    Case("scales_not_finite", strange_scales(float("inf"), float("nan"))),
)
