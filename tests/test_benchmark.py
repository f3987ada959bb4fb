"""The measuring itself: names, gates, anchors, files. Speeds are not tested: they depend on the day."""

import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest
import torch

import wan_kernels  # noqa: F401  (fills the registry)
from benchmarks import report
from wan_kernels import benchmark, dispatch, records
from wan_model.commands.bench import run_once


def measured(op: str, case: str, backends: list[str], **options) -> dict[str, benchmark.Row]:
    rows = benchmark.measure([op], backends, cases=[case], dtypes=["fp32"], budget_s=0.01, **options)
    return {f"{row.direction}/{row.backend}": row for row in rows}


def test_rows_carry_names_and_figures() -> None:
    rows = measured("rms_norm", "width_127", ["reference"])
    assert set(rows) == {"fwd/reference", "fwd/clone", "bwd/reference", "bwd/clone"}
    row = rows["fwd/reference"]
    assert row.name == "rms_norm/width_127/fp32/fwd/reference"
    assert row.num_bytes == 4 * (2 * 3 * 5 * 127 + 127)
    assert 0 < row.ms_p10 <= row.ms_median <= row.ms_p90
    assert row.num_runs >= 5
    assert row.gbps == pytest.approx(row.num_bytes / row.ms_median / 1e6)


def test_rows_say_how_exact_they_are() -> None:
    rows = measured("quantize_rows", "width_127", ["cpu", "reference"])
    assert rows["fwd/reference"].error_max is None
    assert 0 <= rows["fwd/cpu"].error_max < 1e-2


def test_a_backend_whose_gate_is_red_gets_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in ("_backends", "_candidates", "_backward_candidates"):
        content = {op: value if table != "_backends" else list(value) for op, value in getattr(dispatch, table).items()}
        monkeypatch.setattr(dispatch, table, content)
    dispatch.register_backend("rms_norm", "wrong", forward=lambda x, weight, eps: torch.empty(x.shape, dtype=x.dtype))
    benchmark.gate.cache_clear()
    row = measured("rms_norm", "width_127", ["wrong", "reference"], directions=["fwd"])["fwd/wrong"]
    assert row.ms_median is None
    assert row.reason.startswith("correctness gate is red: rms_norm/tokens_127_1.3B/float32/wrong/output_0")


def test_ops_without_a_rival_are_left_out() -> None:
    assert benchmark._ops_with(["sdpa", "reference"]) == ["attention"]
    assert benchmark._ops_with(["reference"]) == benchmark._ops_with(None) == sorted(dispatch.ops())


def test_refused_calls_say_why() -> None:
    row = measured("attention", "no_queries", ["sdpa"])["fwd/sdpa"]
    assert row.reason == "takes no empty tensors"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[benchmark\] backend must be one of .*, got 'cpv'"):
        list(benchmark.measure(["rms_norm"], ["cpv"]))
    with pytest.raises(ValueError, match=r"\[benchmark\] op must be one of .*, got 'norm'"):
        list(benchmark.measure(["norm"]))


def test_real_shapes_are_chosen_by_what_the_device_affords() -> None:
    on_cpu = [case.name for case in benchmark.chosen_cases("rms_norm", None, "cpu")]
    on_gpu = [case.name for case in benchmark.chosen_cases("rms_norm", None, "cuda")]
    assert "wide_1.3B" in on_cpu
    assert "720p_81f_14B" not in on_cpu
    assert "720p_81f_14B" in on_gpu
    assert all(benchmark.chosen_cases(op, None, "cpu") for op in dispatch.ops())


def test_files_are_whole_or_absent(tmp_path) -> None:
    rows = list(measured("rms_norm", "width_127", ["reference"]).values())
    path = tmp_path / "ops.json"
    benchmark.save(rows, path)
    saved = json.loads(path.read_text())
    assert [row["name"] for row in saved] == [row.name for row in rows]
    assert all(row["versions"]["torch"] == torch.__version__ and row["device"] for row in saved)
    with pytest.raises(TypeError):
        benchmark.write_json(path, object())
    assert [each.name for each in tmp_path.iterdir()] == ["ops.json"]
    assert json.loads(path.read_text()) == saved


def test_pytest_benchmark_runs_the_same_cases(tmp_path) -> None:
    one = "gate_residual/wide_1.3B/bf16/fwd/cpu"
    command = [sys.executable, "-m", "pytest", f"benchmarks/test_ops.py::test_speed[{one}]", "--benchmark-only"]
    found = subprocess.run(
        [*command, f"--benchmark-json={tmp_path / 'rows.json'}"], cwd=report.ROOT, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout
    [row] = json.loads((tmp_path / "rows.json").read_text())["benchmarks"]
    assert row["param"] == one
    assert row["stats"]["rounds"] == 10
    assert row["extra_info"]["num_bytes"] == 8192 * 1536 * (4 + 4 + 2) + 4 * 1536


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: the call would run")
def test_a_profiled_call_needs_one_of_each_and_a_gpu() -> None:
    with pytest.raises(ValueError, match=r"^\[bench\] --ncu must be told one op, .*, got none or several cases"):
        run_once(None, ops=["rms_norm"], backends=["cpu"], cases=None, dtypes=["fp32"], directions=["fwd"])
    with pytest.raises(ValueError, match=r"^\[bench\] --ncu must run on a CUDA device, got cpu"):
        run_once("cpu", ops=["rms_norm"], backends=["cpu"], cases=["wide_1.3B"], dtypes=["fp32"], directions=["fwd"])


def test_table_has_a_line_for_each_row() -> None:
    rows = list(measured("rms_norm", "width_127", ["reference"]).values())
    text = benchmark.table(rows)
    assert all(row.name in text for row in rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: the report would run")
def test_report_without_a_gpu_says_so_and_has_its_own_exit_code() -> None:
    found = subprocess.run([sys.executable, "-m", "benchmarks.report"], cwd=report.ROOT, capture_output=True, text=True)
    assert found.returncode == report.EXIT_NO_GPU == 3
    assert found.stdout.strip() == (
        "[gpu-report] a CUDA device must be present, torch sees none; run it on a machine with a GPU"
    )
    assert found.stderr == ""


SUITE = """<testsuites><testsuite>
<testcase name="test_conforms[rms_norm-tokens_127_1.3B-cuda-fp32]"/>
<testcase name="test_conforms[rms_norm-width_1-cuda-bf16]"/>
<testcase name="test_conforms[attention-one_key-sdpa-fp32]">
<failure message="AssertionError: off by 3&#10;more"/></testcase>
<testcase name="test_conforms[rms_norm-width_1-cpu-bf16]"><skipped message="no"/></testcase>
</testsuite></testsuites>"""


def test_a_passing_record_proves_a_backend(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = report.summary_of(ElementTree.fromstring(SUITE))
    assert summary["passed"] == {"rms_norm/cuda": 2}
    assert summary["failures"] == ["test_conforms[attention-one_key-sdpa-fp32]: AssertionError: off by 3"]
    monkeypatch.setattr(records, "PROVEN", tmp_path / "proven.json")
    monkeypatch.setattr(records, "proven", dict)
    facts = {"environment": {"device": "H200"}, "date": "2026-01-01", "sources": {"rms_norm/cuda": "0123"}}
    report.note_proven(summary | facts)
    proven = json.loads((tmp_path / "proven.json").read_text())
    assert proven == {"rms_norm/cuda": {"source": "0123", "device": "H200", "date": "2026-01-01"}}
