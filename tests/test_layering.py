"""Imports point down only: tests, benchmarks, examples -> wan_model -> wan_kernels. Rooms never import rooms."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("wan_kernels", "wan_model", "benchmarks")
BACKEND = re.compile(r"backend_\w+|use_backend|register_backend")


def files_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    """Absolute dotted names that a file imports, `from a import b` giving `a.b`."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            prefix = ".".join(filter(None, (base, node.module)))
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", LAYERS)
def test_imports_point_down(package: str) -> None:
    above = {*LAYERS[LAYERS.index(package) + 1 :], "tests", "examples"} - {package}
    found = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files_of(package)
        for name in imports_of(path)
        if name.split(".")[0] in above
    ]
    assert found == []


def test_rooms_never_import_rooms() -> None:
    found = []
    for path in files_of("wan_kernels/ops"):
        room = path.relative_to(ROOT / "wan_kernels" / "ops").parts[0]
        for name in imports_of(path):
            parts = name.split(".")
            if parts[:2] == ["wan_kernels", "ops"] and parts[2:3] != [room]:
                found.append(f"{path.relative_to(ROOT)} imports {name}")
    assert found == []


def test_shared_code_knows_no_room() -> None:
    """common/, dispatch and define_op serve rooms; only the table of contents imports them."""
    shared = [*files_of("wan_kernels/common"), ROOT / "wan_kernels/dispatch.py", ROOT / "wan_kernels/define_op.py"]
    found = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in shared
        for name in imports_of(path)
        if name.startswith("wan_kernels.ops")
    ]
    assert found == []


def test_the_model_calls_public_ops_only() -> None:
    found = []
    for path in files_of("wan_model"):
        for name in imports_of(path):
            if name.startswith("wan_kernels.ops") or BACKEND.search(name):
                found.append(f"{path.relative_to(ROOT)} imports {name}")
    assert found == []


def test_networks_have_no_device_branches() -> None:
    names = ("dit.py", "vae.py", "text_encoder.py")
    branch = re.compile(r"is_cuda|device\.type\s*[!=]=|cuda\.is_available|use_backend")
    found = [name for name in names if branch.search((ROOT / "wan_model" / name).read_text())]
    assert found == []


def test_each_room_is_complete() -> None:
    for room in sorted((ROOT / "wan_kernels" / "ops").iterdir()):
        if room.is_dir() and room.name != "__pycache__":
            missing = {"__init__.py", "api.py", "reference.py", "cases.py"} - {path.name for path in room.iterdir()}
            assert missing == set(), f"{room.name} lacks {missing}"


def test_csrc_knows_neither_python_nor_torch() -> None:
    forbidden = re.compile(r'#\s*include\s*[<"](Python\.h|pybind11|torch|ATen|c10)')
    found = [
        str(path.relative_to(ROOT))
        for folder in ("ops", "common", "include")
        for path in (ROOT / "csrc" / folder).rglob("*")
        if path.is_file() and forbidden.search(path.read_text())
    ]
    assert found == []
