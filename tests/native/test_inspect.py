"""What the GPU kernels compile to for sm_90a, and that the inspection sees what is wrong."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from wan_kernels import dispatch, inspect
from wan_kernels.common.triton import Expectation
from wan_kernels.inspect import Compiled, Row
from wan_model.cli import main

OPS = [op for op in dispatch.ops() if "triton" in dispatch.names(op)]
EXPECTS = Expectation(max_registers=255, mnemonics=("QGMMA",), forbidden=("LDGSTS",), limits=(("SHFL", 8),))
COUNTS = dict.fromkeys(inspect.MNEMONICS, 0) | {"QGMMA": 4}
CLEAN = Compiled(registers=168, shared_bytes=65536, warps=8, mnemonics=tuple(COUNTS.items()))
SERIALISED_LOG = """\
ptxas info    : (C7515) Potential Performance Loss: wgmma.mma_async instructions are serialized due to the presence
ptxas info    : Compiling entry function 'some_fwd_kernel' for 'sm_90a'
    272 bytes stack frame, 344 bytes spill stores, 340 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 272 bytes cumulative stack size
ptxas info    : Used 40 registers, used 1 barriers, 32 bytes smem
"""


def what_is_wrong(rows: list[Row]) -> list[str]:
    return [f"{row.key}: {row.reason}" for row in rows if not row.ok]


@pytest.mark.parametrize("op", OPS)
def test_each_kernel_compiles_to_what_it_was_designed_for(op: str) -> None:
    rows, _ = inspect.inspect([op], is_brief=True)
    assert rows
    assert what_is_wrong(rows) == []


@pytest.mark.slow
def test_every_kernel_of_every_heavy_case() -> None:
    rows, _ = inspect.inspect()
    assert {row.op for row in rows} >= set(OPS)
    assert what_is_wrong(rows) == []


def test_backward_kernels_are_inspected_too() -> None:
    kernels = {work.launch.kernel for work in inspect.work_of("rms_norm")}
    assert kernels == {"rms_norm_fwd_kernel", "rms_norm_bwd_kernel", "sum_slots_kernel"}


def test_a_kernel_that_does_not_compile_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    work = inspect.work_of("quantize_rows")[:1]
    no_width = dict(work[0].launch.constants, BLOCK=3)
    rows = inspect.triton_rows([replace(work[0], launch=replace(work[0].launch, constants=no_width))])
    assert not rows[0].ok
    assert "does not compile" in str(rows[0].reason)


def test_the_assembler_is_read() -> None:
    compiled = inspect.read_log(SERIALISED_LOG, COUNTS, warps=8, shared_bytes=1024)
    assert (compiled.registers, compiled.spill_bytes, compiled.serialised) == (255, 344, 1)
    assert compiled.shared_bytes == 1024


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"registers": 256}, "256 registers"),
        ({"spill_bytes": 8}, "spills 8 bytes"),
        ({"serialised": 1}, "wait for each other"),
        ({"shared_bytes": 230 * 1024}, "0 programs per multiprocessor"),
        ({"mnemonics": tuple((COUNTS | {"QGMMA": 0}).items())}, "no QGMMA"),
        ({"mnemonics": tuple((COUNTS | {"LDGSTS": 3}).items())}, "3 LDGSTS"),
        ({"mnemonics": tuple((COUNTS | {"SHFL": 9}).items())}, "9 SHFL, at most 8"),
        ({"mnemonics": tuple((COUNTS | {"STL": 2}).items())}, "spills"),
    ],
)
def test_each_fault_is_a_complaint(change: dict[str, object], complaint: str) -> None:
    assert inspect.complaints(CLEAN, EXPECTS) == []
    (found,) = inspect.complaints(replace(CLEAN, **change), EXPECTS)
    assert complaint in found


def test_programs_per_multiprocessor() -> None:
    assert CLEAN.ctas_per_sm == 1
    assert replace(CLEAN, registers=128).ctas_per_sm == 2
    assert replace(CLEAN, registers=32, shared_bytes=0).ctas_per_sm == 8


def row(**change: object) -> Row:
    made = inspect.row_of(("some_op", "triton", "720p", "some_fwd_kernel", "warps=8"), CLEAN, EXPECTS, 12.5)
    return replace(made, **change)


def test_differences_name_the_figure() -> None:
    assert inspect.differences([row()], [row()]) == []
    assert inspect.differences([row()], []) == ["some_op/triton/720p/some_fwd_kernel: new"]
    changed = row(registers=190, mnemonics=COUNTS | {"QGMMA": 8})
    lines = [line.split(": ")[1] for line in inspect.differences([changed], [row()])]
    assert lines == ["registers 168 -> 190", "QGMMA 4 -> 8"]


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "rows.json"
    good, bad = row(), row(registers=190, ok=False, reason="190 registers, at most 168")
    monkeypatch.setattr(inspect, "inspect", lambda ops: ([good], ["rms_norm/cuda: nvcc is not on the PATH"]))
    assert main(["kernels", "inspect", "--json", str(report)]) == 0
    assert json.loads(report.read_text())["rows"] == [asdict(good)]
    assert "not inspected: rms_norm/cuda" in capsys.readouterr().out
    monkeypatch.setattr(inspect, "inspect", lambda ops: ([bad], []))
    assert main(["kernels", "inspect", "--baseline", str(report)]) == 1
    out = capsys.readouterr().out
    assert "no: 190 registers, at most 168" in out and "registers 168 -> 190" in out


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "inspect", "--op", "no_such_op"]) == 2
    assert "[inspect] op must be one of" in capsys.readouterr().err
    (tmp_path / "other.json").write_text("[]")
    assert main(["kernels", "inspect", "--baseline", str(tmp_path / "other.json")]) == 2
    assert "[inspect] baseline must be" in capsys.readouterr().err
