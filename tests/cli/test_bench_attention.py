"""`wan bench attention`: figures that are right, gates that hold, files that others read, bad input."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import wan_kernels as wk
from wan_kernels import dispatch, timing
from wan_kernels.attention_bench import accuracy, contenders
from wan_kernels.attention_bench.inputs import FAMILIES, captured, made
from wan_kernels.attention_format import CPU_FORMAT, GPU_FORMAT
from wan_kernels.ops.attention_8bit import reference
from wan_model.cli import main
from wan_model.commands import bench_compare, bench_report

QUICK = ("--heads", "2", "--seconds", "0.001", "--device", "cpu")


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(path.read_text())}


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch):
    """Registers an attention_8bit backend for this test alone."""

    def register(forward: Any) -> None:
        for table in ("_backends", "_candidates", "_backward_candidates"):
            kept = getattr(dispatch, table)
            monkeypatch.setattr(dispatch, table, {op: list(kept[op]) for op in kept} if table == "_backends" else {})
        dispatch.register_backend("attention_8bit", "wrong", forward=forward)

    return register


def test_figures(tmp_path, capsys) -> None:
    path = tmp_path / "attention.json"
    assert main(["bench", "attention", "--tokens", "64,130", *QUICK, "--json", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "outlier_130x130_2x128: judging torch.sdpa in bf16" in err
    rows = rows_of(path)
    assert {row["case"] for row in rows.values()} == {
        f"{family}_{n}x{n}_2x128" for family in FAMILIES for n in (64, 130)
    }
    wanted = {f"attention_8bit.{each}" for each in ("cpu", "reference")} | {"torch.sdpa"}
    wanted |= {f"attention.{each}" for each in ("cpu", "sdpa", "reference")}
    assert {row["backend"] for row in rows.values() if row["ms_median"] is not None} == wanted
    for name, row in rows.items():
        assert row["backend"] in out
        if row["ms_median"] is None:
            assert row["reason"] and not row["is_red"]
            continue
        assert row["num_runs"] >= 3 and 0 < row["ms_p10"] <= row["ms_median"] <= row["ms_p90"], name
        length = row["num_queries"]
        assert row["tflops"] == pytest.approx(4 * length**2 * 2 * 128 / row["ms_median"] / 1e9)
        assert all(math.isfinite(row[key]) for key in ("cosine", "relative_l1", "rmse", "sqnr_db", "error_max"))
        assert (row["prepare_ms"] is not None) == row["backend"].startswith("attention_8bit")
        assert (row["lse_error"] is None) == row["backend"].startswith("torch")
        # An exact attention is at 1, 8 bits are near, and not by reading something else.
        assert row["cosine"] >= accuracy.BARS[row["family"]]
        assert (row["relative_l1"] < 1e-6) == (row["dtype"] == "fp32")
        assert row["speedup"] > 0
    fastest = min(row["ms_median"] for row in rows.values() if is_torch(row, "video_64x64_2x128"))
    ours = rows["attention/video_64x64_2x128/fp32/fwd/attention.sdpa"]
    assert ours["speedup"] == pytest.approx(fastest / ours["ms_median"])
    assert bench_compare.run(path, path, "5%") == 0
    bench_report.run([path], tmp_path / "page.html")
    assert "attention/video_64x64_2x128/int8" in (tmp_path / "page.html").read_text()


def is_torch(row: dict[str, Any], case: str) -> bool:
    return row["case"] == case and row["backend"].startswith("torch") and row["ms_median"] is not None


@pytest.mark.parametrize("form", [CPU_FORMAT, GPU_FORMAT], ids=["int8", "fp8"])
def test_errors_are_those_of_the_whole(form) -> None:
    """Against plain products in float64 over every query and head: at this size none is left out."""
    given = made("video", 130, 2, 64, "cpu")
    truth = accuracy.Truth.of(given)
    q, k, v = (each.double().transpose(1, 2) for each in (given.q, given.k, given.v))
    logits = q @ k.mT / 8
    wanted = (logits.softmax(-1) @ v).transpose(1, 2)
    torch.testing.assert_close(truth.out, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(truth.lse, logits.logsumexp(-1), rtol=1e-12, atol=0)

    contender = contenders.EightBit(dispatch.REFERENCE, form, None)
    prepared = contender.prepare(given.q, given.k, given.v)
    out, lse = contender.run(prepared)
    found = accuracy.errors_of(out, truth)
    noise = (out.double() - wanted).flatten()
    assert found["relative_l1"] == pytest.approx((noise.abs().sum() / wanted.abs().sum()).item())
    assert found["rmse"] == pytest.approx(noise.square().mean().sqrt().item())
    assert found["sqnr_db"] == pytest.approx(20 * math.log10((wanted.norm() / noise.norm()).item()))
    assert found["error_max"] == pytest.approx((noise.abs().max() / wanted.abs().max()).item())
    assert found["cosine"] == pytest.approx(
        (out.double() * wanted).sum().item() / (out.double().norm() * wanted.norm())
    )
    read = accuracy.errors_of_read(out, lse, contender.read(prepared, truth.part), truth)
    assert read["lse_error"] == pytest.approx((lse.double() - logits.logsumexp(-1)).abs().max().item(), rel=1e-6)
    # The reference is exact on the codes, so that what is left is the rounding of its output.
    assert read["lse_error_read"] < 1e-5 < read["lse_error"]
    assert 1 - read["cosine_read"] < 1e-5 < 1 - found["cosine"]


def test_the_truth_in_chunks_is_the_truth(monkeypatch) -> None:
    given = made("outlier", 300, 3, 32, "cpu")
    whole = accuracy.Truth.of(given)
    monkeypatch.setattr(accuracy, "CHUNK", 7)
    chunked = accuracy.Truth.of(given)
    torch.testing.assert_close(chunked.out, whole.out, rtol=1e-12, atol=1e-12)
    assert len(whole.part.rows) == 256 and whole.part.heads == [0, 2]
    assert (whole.part.rows[0], whole.part.rows[-1]) == (0, 299)


def wrong_out(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
    out, lse = reference.forward(*args)
    return out.roll(1, 1), lse


def wrong_lse(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
    out, lse = reference.forward(*args)
    return out, lse + 2e-3


def no_numbers(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
    out, lse = reference.forward(*args)
    return out * float("nan"), lse


def no_memory(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
    raise torch.OutOfMemoryError("out of memory\nand more lines")


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (wrong_out, "correctness gate is red: cosine "),
        (wrong_lse, "correctness gate is red: log-sum-exp is 2.0e-03 off that of what was read, more than 0.001"),
        (no_numbers, "correctness gate is red: cosine nan is below 0.9990"),
        (no_memory, "raised OutOfMemoryError: out of memory"),
    ],
)
def test_a_broken_backend_is_red_and_gets_no_times(broken, tmp_path, capsys, forward, reason) -> None:
    broken(forward)
    path = tmp_path / "attention.json"
    options = ("--tokens", "64", "--input", "random", "--backend", "attention_8bit,torch.sdpa", "--json", str(path))
    assert main(["bench", "attention", *QUICK, *options]) == 1
    [line] = [line for line in capsys.readouterr().out.splitlines() if "attention_8bit.wrong" in line]
    assert "RED" in line and reason in line
    rows = {row["backend"]: row for row in rows_of(path).values()}
    assert rows["attention_8bit.wrong"]["is_red"] and rows["attention_8bit.wrong"]["reason"].startswith(reason)
    assert rows["attention_8bit.wrong"]["ms_median"] is None
    assert rows["attention_8bit.reference"]["ms_median"] > 0


def test_what_8_bits_cost_captured_inputs_is_no_fault(tmp_path, capsys) -> None:
    """Large values that nearly cancel: their codes do not, and the table says so."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 64, 2, 32, generator=generator) for _ in range(3))
    v = v * torch.linspace(0.1, 8, 64)[None, :, None, None]
    v = v - v.mean(1, keepdim=True) + 0.03 * torch.randn(1, 1, 2, 32, generator=generator)
    path = tmp_path / "qkv.safetensors"
    save_file({"x.q": 0.01 * q, "x.k": k, "x.v": v}, path)
    options = ("--input", str(path), "--backend", "attention_8bit", "--json", str(tmp_path / "rows.json"))
    assert main(["bench", "attention", *QUICK, *options]) == 0
    rows = {row["backend"]: row for row in rows_of(tmp_path / "rows.json").values()}
    row = rows["attention_8bit.reference"]
    assert row["cosine"] < 0.9985 < row["cosine_read"] and row["ms_median"] > 0
    assert row["case"] == "qkv.x_64x64_2x32"


def test_captures_come_back_as_written(tmp_path) -> None:
    tensors = {f"a.b.{part}": torch.randn(1, 5 if part == "q" else 9, 2, 16).bfloat16() for part in "qkv"}
    path = tmp_path / "qkv.safetensors"
    save_file(tensors, path)
    given = captured(path, "a.b", "cpu")
    for part in "qkv":
        assert torch.equal(getattr(given, part), tensors[f"a.b.{part}"])
    assert (given.title, given.flops) == ("qkv.a.b_5x9_2x16", 4 * 5 * 9 * 2 * 16)


def test_each_call_has_its_own_budget() -> None:
    calls = {"slow": 0, "quick": 0}

    def run(name: str, seconds: float) -> None:
        calls[name] += 1
        time.sleep(seconds)

    runs = {"slow": lambda: run("slow", 0.02), "quick": lambda: run("quick", 0.0)}
    times = timing.interleaved_each(runs, "cpu", 0.01)
    assert len(times["slow"]) == calls["slow"] == timing.LEAST_RUNS
    assert len(times["quick"]) == calls["quick"] > timing.LEAST_RUNS


def test_quantising_takes_the_mean_of_k_off() -> None:
    given = made("video", 70, 2, 32, "cpu")
    q, k, v = contenders.quantize_qkv(given.q, given.k, given.v, CPU_FORMAT)
    torch.testing.assert_close(k[2], given.k.float().mean(1))
    assert torch.count_nonzero(q[2]) == torch.count_nonzero(v[2]) == 0
    out = wk.attention_8bit(q, k, v, **CPU_FORMAT.options)
    assert out.shape == given.q.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tokens", "many"], "[tokens] must be whole numbers with commas between, got 'many'"),
        (["--tokens", "0"], "[bench] tokens must be at least 1, got 0"),
        (["--heads", "0"], "[bench] heads must be at least 1, got 0"),
        (["--head-width", "-1"], "[bench] head-width must be at least 1, got -1"),
        (["--seconds", "0"], "[bench] seconds must be positive, got 0.0"),
        (["--device", "tpu"], "[device] must be cpu, cuda or cuda:N, got 'tpu'"),
        (["--backend", "cudnn"], "[bench] backend must be one of attention_8bit.cpu, "),
        (["--input", "noise"], "[bench] input must be one of random, outlier, video or FILE.safetensors, got 'noise'"),
        (["--input", "none.safetensors"], "[bench] input must be a file, got none.safetensors"),
        (["--json", "none/a.json"], "[output] directory must exist, got none; create it first"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, capsys, options, message) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(capsys, ["--tokens", "64", *QUICK, *options], message)
    assert os.listdir(tmp_path) == []


def assert_refused(capsys, options: list[str], message: str) -> None:
    assert main(["bench", "attention", *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert message in err


X = torch.zeros(1, 3, 2, 16)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": X}, "must hold NAME.q, NAME.k and NAME.v as wan capture writes them, got none"),
        ({"a.q": X, "a.k": X}, "must hold a as [B, L, N, H], k and v alike, got (1, 3, 2, 16), (1, 3, 2, 16) and ()"),
        ({"a.q": X, "a.k": X[:, :2].clone(), "a.v": X.clone()}, "must hold a as [B, L, N, H], k and v alike"),
        ({"a.q": X, "a.k": X[..., :8].clone(), "a.v": X[..., :8].clone()}, "must hold a as [B, L, N, H]"),
    ],
)
def test_files_without_captures_are_refused(tmp_path, capsys, tensors, message) -> None:
    path = tmp_path / "file.safetensors"
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
    assert_refused(capsys, ["--input", str(path), *QUICK], message)
    path.write_bytes(b"no header")
    assert_refused(capsys, ["--input", str(path), *QUICK], "header")
