"""The examples run as they are printed, on a tiny model with random weights."""

import runpy
from pathlib import Path

import pytest

from wan_model import pipeline

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def workplace(tiny_directory, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "TINY_DIRECTORY", tiny_directory)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_generate(workplace):
    runpy.run_path(str(EXAMPLES / "generate.py"))
    assert {path.stem for path in workplace.iterdir()} >= {"example-1", "example-2"}


def test_preview_and_cancel(workplace, capsys):
    runpy.run_path(str(EXAMPLES / "preview_and_cancel.py"))
    assert len(list(workplace.glob("preview-*.png"))) == 8
    assert "cancelled at step 8" in capsys.readouterr().out


@pytest.mark.slow
def test_fused_op(capsys):
    """Slow because torch.compile calls a C++ compiler."""
    runpy.run_path(str(EXAMPLES / "fused_op.py"))
    assert "compiled, in one graph" in capsys.readouterr().out


def test_every_example_is_run():
    tested = {"generate.py", "preview_and_cancel.py", "fused_op.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested
