"""The commands that succeed, as a user runs them."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from wan_kernels import dispatch
from wan_model.cli import main
from wan_model.config import PRESETS
from wan_model.video_io import missing_encoder, read_video

PROMPT = "a red circle moves right"
QUICK = ("--size", "32x32", "--frames", "5", "--steps", "2")


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs a command that must succeed, in an empty directory; returns what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        assert main(list(arguments)) == 0
        return capsys.readouterr().out

    return run


def test_importing_loads_nothing_heavy_or_optional():
    heavy = ("torch", "numpy", "av", "PIL", "rich.progress", "transformers", "diffusers", "matplotlib")
    code = f"import sys, wan_model, wan_model.cli; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


WITHOUT_OPTIONAL = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in "av transformers diffusers cv2 matplotlib pynvml sentencepiece".split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from wan_model.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_generate_without_optional_packages(tiny_directory, tmp_path):
    command = [sys.executable, "-c", WITHOUT_OPTIONAL, "generate", PROMPT, "--model", str(tiny_directory), *QUICK]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (found.returncode, found.stdout.split()) == (0, ["out.gif", "out.sheet.png", "out.json"])
    assert "note: no mp4: PyAV cannot be imported" in found.stderr and "wrote a GIF instead" in found.stderr


def test_names_resolve_lazily():
    import wan_model

    assert set(wan_model.__all__) <= {name for name in wan_model.__all__ if hasattr(wan_model, name)}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = wan_model.nothing


@pytest.mark.parametrize("command", ["generate", "plan", "train", "convert", "capture", "bench ops", "bench attention"])
def test_help_has_an_example(run, command):
    assert f"wan {command} " in run(*command.split(), "--help")


def test_version(run):
    assert run("--version").startswith("wan ")


@pytest.mark.skipif(missing_encoder() is not None, reason=str(missing_encoder()))
def test_generate_leaves_a_video_a_sheet_and_settings(run, tiny_directory, tmp_path):
    out = run("generate", PROMPT, "--model", str(tiny_directory), *QUICK, "--seed", "5", "-o", "a.mp4")
    assert out.split() == ["a.mp4", "a.sheet.png", "a.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.mp4", "a.sheet.png"]
    assert read_video(tmp_path / "a.mp4").shape == (5, 32, 32, 3)
    record = json.loads((tmp_path / "a.json").read_text())
    assert (record["prompt"], record["seed"], record["size"]) == (PROMPT, 5, [32, 32])


def test_generate_in_tiles_says_so(capsys, tiny_directory, tmp_path):
    options = ("--size", "192x128", "--frames", "5", "--steps", "1", "--guidance", "1", "--tile", "128x128")
    path = tmp_path / "a.gif"
    assert main(["generate", PROMPT, "--model", str(tiny_directory), *options, "-o", str(path)]) == 0
    err = capsys.readouterr().err
    assert err.startswith("chunk 4, 2 tiles of 128x128: decode at 192x128 takes ")
    assert read_video(path).shape == (5, 128, 192, 3)
    assert json.loads(path.with_suffix(".json").read_text())["tile"] == [128, 128]


def test_generate_several(run, tiny_directory, tmp_path):
    out = run("generate", PROMPT, "a blue square", "--model", str(tiny_directory), *QUICK, "-o", "a.gif")
    assert out.split()[::3] == ["a-1.gif", "a-2.gif"]
    assert len(list(tmp_path.iterdir())) == 6


def test_generate_an_image(run, tiny_directory, tmp_path):
    options = ("--model", str(tiny_directory), "--size", "32*32", "--steps", "1", "--frames", "1", "--guidance", "1")
    run("generate", PROMPT, *options, "-o", "a.png")
    assert read_video(tmp_path / "a.png").shape == (1, 32, 32, 3)


def test_generate_twice_is_the_same_in_both_layouts(run, tiny_directory, tmp_path):
    run("convert", str(tiny_directory), "tiny-diffusers", "--to", "diffusers")
    run("generate", PROMPT, "--model", str(tiny_directory), *QUICK, "-o", "a.gif")
    run("generate", PROMPT, "--model", "tiny-diffusers", *QUICK, "-o", "b.gif")
    assert np.array_equal(read_video(tmp_path / "a.gif"), read_video(tmp_path / "b.gif"))
    assert not list(tmp_path.glob(".*"))


def test_kernels_list_names_every_op_and_every_hole(run):
    table = run("kernels", "list")
    assert all(op in table for op in dispatch.ops())
    for each in dispatch.survey():
        assert each.reason is None or each.reason in table
    assert {entry["op"] for entry in json.loads(run("kernels", "list", "--json"))} == set(dispatch.ops())


def test_doctor(run):
    report = run("doctor")
    for word in ("torch", "processor", "compiled kernels", "free memory", "GPU", "reference", "weights", *PRESETS):
        assert word in report
    assert set(json.loads(run("doctor", "--json"))) == {"versions", "machine", "backends", "models", "video"}


def test_bench_ops(run, tmp_path):
    out = run(
        "bench", "ops", "--op", "rms_norm", "--backend", "reference", "--case", "width_127", "--dtype", "fp32",
        "--direction", "fwd", "--seconds", "0.01", "--json", "ops.json",
    )  # fmt: skip
    assert "rms_norm/width_127/fp32/fwd/reference" in out
    record = json.loads((tmp_path / "ops.json").read_text())
    medians = {row["backend"]: row["ms_median"] for row in record}
    assert set(medians) == {"reference", "clone"} and min(medians.values()) > 0
    assert all(row["versions"]["torch"] for row in record)
