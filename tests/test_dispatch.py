"""Registration, preference, refusal and force, on an op invented for the purpose."""

import os
import subprocess
import sys

import pytest
import torch

import wan_kernels
from wan_kernels import dispatch, records
from wan_kernels.define_op import OPS

OP = "invented"


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """An op with two backends and a reference; the real registry comes back afterwards."""
    for table in ("_backends", "_parameters", "_candidates", "_backward_candidates"):
        monkeypatch.setattr(dispatch, table, dict(getattr(dispatch, table)))
    monkeypatch.setattr(dispatch, "_forced", {})
    dispatch.set_parameters(OP, ("x",))
    dispatch.register_backend(OP, "reference", forward=lambda x: "reference", backward=lambda *saved: ())
    dispatch.register_backend(
        OP, "fast", forward=lambda x: "fast", reject=lambda x: "wants a positive x" if x <= 0 else None
    )
    dispatch.register_backend(OP, "absent", forward=lambda x: "absent", available=lambda: "no such device")


def run(x: int) -> str:
    return dispatch.select(OP, (x,)).forward(x)


def test_order_of_registration_is_preference_and_the_reference_is_last() -> None:
    assert dispatch.names(OP) == ("fast", "absent", "reference")
    assert run(1) == "fast"
    assert run(-1) == "reference"


def test_backward_goes_to_the_next_backend_that_has_one() -> None:
    assert dispatch.select_backward(OP, (1,)).name == "reference"
    with dispatch.use_backend(invented="fast"):
        assert dispatch.select_backward(OP, (1,)).name == "reference"


def test_availability_is_asked_once() -> None:
    asked = []
    dispatch.register_backend(OP, "slow_to_ask", forward=lambda x: "", available=lambda: asked.append(1) or "no")
    for _ in range(3):
        run(-1)
        dispatch.survey()
    assert asked == [1]


def test_an_experimental_backend_runs_only_when_forced() -> None:
    dispatch.register_backend(OP, "new", forward=lambda x: "new", unproven=lambda: "experimental: no record")
    assert dispatch.names(OP)[-2] == "new"
    assert run(-1) == "reference"
    assert ("new", "experimental: no record") in dispatch.explain(OP, -1).refused
    with dispatch.use_backend(invented="new"):
        assert run(-1) == "new"
        assert dispatch.select_backward(OP, (1,)).name == "reference"


def test_records_follow_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "proven", lambda: {"rms_norm/cpu": {"source": "old", "device": "H200"}})
    assert "no hardware record" in (records.unproven("attention", "cpu") or "")
    assert "changed since it passed on H200" in (records.unproven("rms_norm", "cpu") or "")
    current = {"source": records.source_hash("rms_norm", "cpu"), "device": "H200"}
    monkeypatch.setattr(records, "proven", lambda: {"rms_norm/cpu": current})
    assert records.unproven("rms_norm", "cpu") is None


def test_forced_backend_runs_and_the_choice_ends_with_the_block() -> None:
    with dispatch.use_backend(invented="reference"):
        assert run(1) == "reference"
        with dispatch.use_backend("fast"):
            assert run(1) == "reference", "a choice for this op is narrower than one for every op"
    assert run(1) == "fast"


def test_forced_for_every_op_counts_where_the_op_has_it() -> None:
    with dispatch.use_backend("fast"):
        assert run(1) == "fast"
        assert wan_kernels.rms_norm(torch.ones(2, 3), torch.ones(3)).shape == (2, 3)


def test_forced_backend_that_cannot_run_raises_with_every_reason() -> None:
    wanted = r"\[invented\].* fast: wants a positive x; absent: fast is forced; reference: fast is forced"
    with dispatch.use_backend(invented="fast"), pytest.raises(RuntimeError, match=wanted):
        run(-1)
    with dispatch.use_backend(invented="absent"), pytest.raises(RuntimeError, match="absent: no such device"):
        run(1)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="must be one of fast, absent, reference, got 'fsat'"):
        dispatch.use_backend(invented="fsat").__enter__()
    with pytest.raises(ValueError, match="got 'fsat'"):
        dispatch.use_backend("fsat").__enter__()
    assert run(1) == "fast"


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match=r"\[invented\] a backend's name must be new, got 'fast'"):
        dispatch.register_backend(OP, "fast", forward=lambda x: "")


def test_signatures_are_checked() -> None:
    with pytest.raises(TypeError, match=r"\[invented\] drifted.forward must take \('x',\), takes \('x', 'scale'\)"):
        dispatch.register_backend(OP, "drifted", forward=lambda x, scale: "")


def test_explain_tells_who_runs_and_why_not_the_others() -> None:
    assert dispatch.explain(OP, 1) == dispatch.Explanation(OP, "fast", ())
    assert dispatch.explain(OP, -1) == dispatch.Explanation(
        OP, "reference", (("fast", "wants a positive x"), ("absent", "no such device"))
    )
    assert dispatch.explain(OP, -1, elsewhere=True).backend == "absent"


def test_explain_needs_no_memory() -> None:
    q = torch.empty(1, 75600, 40, 128, dtype=torch.bfloat16, device="meta")
    for device, backend in (("cpu", "cpu"), ("cuda", "sdpa")):
        assert dispatch.explain("attention", q, q, q, None, None, device=device).backend == backend
    assert OPS["attention"].cost(q, q, q, None, None).flops == 4 * 75600**2 * 5120


def test_survey_names_every_hole() -> None:
    holes = {(each.op, each.backend): each.reason for each in dispatch.survey()}
    assert holes[OP, "absent"] == "no such device"
    assert holes["rms_norm", "fast"] == "not written for this op"
    assert holes["rms_norm", "reference"] is None


def test_required_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAN_KERNELS_REQUIRE", "fast, absent,nowhere")
    assert dispatch.required() == ("fast", "absent", "nowhere")
    assert dispatch.missing_required() == ["invented/absent: no such device", "nowhere: no op has such a backend"]


def test_environment_is_read() -> None:
    assert dispatch.parse_forced("cpu") == {"*": "cpu"}
    assert dispatch.parse_forced(" rms_norm=cpu, attention = reference,") == {
        "rms_norm": "cpu",
        "attention": "reference",
    }


@pytest.mark.parametrize(
    ("forced", "message"),
    [
        (
            "attention=flash",
            f"[attention] backend must be one of {', '.join(dispatch.names('attention'))}, got 'flash'",
        ),
        ("attention=sdpa", "; sdpa: takes no empty tensors; "),
    ],
)
def test_environment_forces(forced: str, message: str) -> None:
    code = "import torch, wan_kernels; q = torch.ones(1, 0, 1, 8); k = torch.ones(1, 1, 1, 8)\n"
    code += "try: wan_kernels.attention(q, k, k)\nexcept (ValueError, RuntimeError) as error: print(error)"
    environment = os.environ | {"WAN_KERNELS_BACKEND": forced}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert message in found.stdout


def test_second_derivatives_are_refused() -> None:
    x = torch.randn(2, 8, requires_grad=True)
    y = wan_kernels.rms_norm(x, torch.ones(8))
    with pytest.raises(RuntimeError, match=r"\[rms_norm\] must be differentiated once only"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


def test_only_wanted_gradients_are_made() -> None:
    x, weight = torch.randn(2, 8), torch.randn(8, requires_grad=True)
    wan_kernels.rms_norm(x, weight).sum().backward()
    assert x.grad is None
    assert weight.grad is not None


def test_no_gradient_means_no_graph() -> None:
    x = torch.randn(2, 8, requires_grad=True)
    with torch.no_grad():
        assert wan_kernels.rms_norm(x, torch.ones(8)).grad_fn is None


def test_a_triton_record_covers_kernels_and_what_they_share() -> None:
    files = {path.name for path in records.source_files("linear_8bit", "triton")}
    assert files >= {"backend_triton.py", "kernels_triton.py", "triton.py", "triton_quantize_kernel.py"}
