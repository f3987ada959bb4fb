"""`wan capture`: tensors that the model really had, what the file says of them, bad input."""

import json
import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open

import wan_kernels as wk
import wan_model.dit
from wan_model import pipeline
from wan_model.cli import main
from wan_model.pipeline import generate, load_pipeline
from wan_model.schedules import make_schedule

PROMPT = "a red circle moves right"
QUICK = ("--prompt", PROMPT, "--size", "32x32", "--frames", "5", "--num-steps", "3", "--device", "cpu")
# Two latent frames of 4 x 4, patches of 2 x 2; two heads of 128; 32 rows of text.
SHAPES = {"self.q": (1, 8, 2, 128), "self.k": (1, 8, 2, 128), "cross.q": (1, 8, 2, 128), "cross.k": (1, 32, 2, 128)}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, ...]]:
    """What the DiT gives `wk.attention`, call by call; on meta tensors it only estimates memory."""
    calls: list[tuple[torch.Tensor, ...]] = []

    def attention(*args: torch.Tensor) -> Any:
        if args[0].device.type != "meta":
            calls.append(tuple(each.clone() for each in args))
        return wk.attention(*args)

    monkeypatch.setattr(wan_model.dit, "wk", SimpleNamespace(**{**vars(wk), "attention": attention}))
    return calls


def test_what_is_written_is_what_attention_was_given(tiny_directory, tmp_path, seen, capsys) -> None:
    path = tmp_path / "qkv.safetensors"
    options = ("--model", str(tiny_directory), "--layers", "0,3", "--steps", "0,1", "--seed", "5")
    assert main(["capture", *QUICK, *options, "-o", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"{path}: 8 attentions, ")
    assert os.listdir(tmp_path) == ["qkv.safetensors"]
    names = {
        f"step{step:03}.layer{layer:02}.{kind}" for step in (0, 1) for layer in (0, 3) for kind in ("self", "cross")
    }
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no dictionary)
        metadata = file.metadata()
    assert set(tensors) == {f"{name}.{part}" for name in names for part in "qkv"}
    for end, shape in SHAPES.items():
        assert tensors[f"step001.layer03.{end}"].shape == shape
    # Four layers, self and cross in turn; a step is one call of both halves of guidance, or two.
    for step, calls in enumerate((seen[:8], seen[len(seen) // 2 :][:8])):
        for layer in (0, 3):
            for i, kind in enumerate(("self", "cross")):
                for part, given in zip("qkv", calls[2 * layer + i], strict=True):
                    assert torch.equal(tensors[f"step{step:03}.layer{layer:02}.{kind}.{part}"], given[:1])
    assert not torch.equal(tensors["step000.layer00.self.q"], tensors["step001.layer00.self.q"])

    assert (metadata["model"], metadata["prompt"], metadata["seed"]) == ("tiny", PROMPT, "5")
    settings = json.loads(metadata["settings"])
    sigmas = make_schedule(settings["solver"], 3, shift=settings["shift"]).sigmas
    captures = {entry["name"]: entry for entry in json.loads(metadata["captures"])}
    assert set(captures) == names
    assert captures["step001.layer03.cross"] == {
        "name": "step001.layer03.cross", "step": 1, "layer": 3, "kind": "cross", "sigma": sigmas[1],
    }  # fmt: skip


def test_the_run_ends_with_the_last_step_wanted(tiny_directory, tmp_path, monkeypatch, capsys) -> None:
    """Nothing is decoded, and the bench reads the file."""
    monkeypatch.setattr(pipeline, "Result", None)
    path = tmp_path / "qkv.safetensors"
    options = ("--model", str(tiny_directory), "--layers", "1", "--steps", "2", "--precision", "bf16")
    assert main(["capture", *QUICK, *options, "-o", str(path)]) == 0
    with safe_open(path, "pt") as file:
        assert len(file.keys()) == 6
        assert file.get_tensor("step002.layer01.self.q").dtype is torch.bfloat16
    rows = tmp_path / "rows.json"
    options = ("--seconds", "0.001", "--backend", "attention,torch.sdpa", "--device", "cpu", "--json", str(rows))
    assert main(["bench", "attention", "--input", str(path), *options]) == 0
    cases = {row["case"] for row in json.loads(rows.read_text())}
    assert cases == {"qkv.step002.layer01.self_8x8_2x128", "qkv.step002.layer01.cross_8x32_2x128"}


def test_the_model_is_left_as_it_was(tiny_directory) -> None:
    from wan_model.capture import capture
    from wan_model.settings import make_settings

    loaded = load_pipeline(tiny_directory, device="cpu")
    options = {"size": (32, 32), "num_frames": 5, "num_steps": 1}
    before = generate(loaded, [PROMPT], **options).videos_BCFYX
    settings = make_settings(loaded.config, [PROMPT], **options)
    assert len(capture(loaded, settings, layers=[0], steps=[0])) == 2
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in loaded.dits[0].modules())
    assert torch.equal(generate(loaded, [PROMPT], **options).videos_BCFYX, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layers", "0,4"], "[capture] layers must be in [0, 4), got 4"),
        (["--layers", "first"], "[layers] must be whole numbers with commas between, got 'first'"),
        (["--steps", "0,3"], "[capture] steps must be in [0, 3), got 3"),
        (["--steps", "-1"], "[steps] must be whole numbers with commas between, got '-1'"),
        (["--num-steps", "0"], "[steps] must be in [1, 1000], got 0"),
        (["--precision", "int8"], "[capture] precision must be fp32 or bf16, whose attention sees no codes, got int8"),
        (["--precision", "fp4"], "[precision] must be one of fp32, bf16, int8, fp8, got 'fp4'"),
        (["--model", "14B"], "[model] 14B has no weights in this package"),
        (["-o", "qkv.pt"], "[output] name must end in .safetensors, got 'qkv.pt'"),
        (["-o", "none/qkv.safetensors"], "[output] directory must exist, got none; create it first"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, capsys, options, message) -> None:
    """The tiny model that comes with the package: nothing of it is read."""
    monkeypatch.chdir(tmp_path)
    assert main(["capture", *QUICK, "-o", "qkv.safetensors", *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert message in err
    assert os.listdir(tmp_path) == []
