"""Fixtures and options of the whole suite; every run ends by telling which backends ran, and how many cases each.

Pytest puts the folder of a conftest on the path, so the helpers beside this file are importable.
"""

import os

# Before NumPy: the threads of its products spin for each small one that the Triton interpreter asks for.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from wan_kernels import dispatch

# Before the first Triton kernel: it decides then whether it is compiled or interpreted.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# The benchmarks are no installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

RAN = pytest.StashKey[Counter[tuple[str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where the ops' conformance runs: cpu or cuda")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RAN] = Counter()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    ran = config.stash[RAN]
    if not ran:
        return
    terminalreporter.section("backends that ran, and how many cases each")
    names = list(dict.fromkeys(standing.backend for standing in dispatch.survey()))
    width = max(map(len, dispatch.ops())) + 1
    terminalreporter.write_line(f"{'':<{width}}" + "".join(f"{name:>11}" for name in names))
    for op in dispatch.ops():
        cells = [str(ran[op, name] or "-") for name in names]
        terminalreporter.write_line(f"{op:<{width}}" + "".join(f"{cell:>11}" for cell in cells))
    for standing in dispatch.survey():
        is_hole = not ran[standing.op, standing.backend] and standing.backend in dispatch.names(standing.op)
        if standing.reason and is_hole:
            terminalreporter.write_line(f"{standing.op}/{standing.backend} did not run: {standing.reason}")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--device"))


@pytest.fixture
def note_ran(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Call with (op, backend) once a conformance case has run."""

    def note(op: str, backend: str) -> None:
        request.config.stash[RAN][op, backend] += 1

    return note


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the tiny preset's shape with random weights, in the official layout; do not write into it."""
    from small_model import save_random_model

    directory = tmp_path_factory.mktemp("models") / "tiny"
    save_random_model(directory, "official")
    return directory
