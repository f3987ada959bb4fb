"""The CUDA kernels as compiled: no GPU is needed to see registers, spills and the width of loads."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from wan_kernels import inspect

ROOT = Path(__file__).parents[2]
SOURCES = sorted(ROOT.glob("csrc/ops/*/*_sm90.cu"))
# The others bring tiles by the copy engine.
ROW_SOURCES = [path for path in SOURCES if "tma.cuh" not in path.read_text()]

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_compiles_without_spills_and_within_registers(source: Path, tmp_path: Path) -> None:
    command = ["nvcc", "-std=c++17", "-O3", "-gencode=arch=compute_90a,code=sm_90a", "-Xptxas=-v", "-cubin"]
    command += [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc' / 'include'}", "-o", str(tmp_path / "out.cubin"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    registers = [int(count) for count in re.findall(r"Used (\d+) registers", done.stderr)]
    assert spills and all(pair == ("0", "0") for pair in spills)
    assert max(registers) <= inspect.block_of(source.parent.name).expects.max_registers
    assert "C75" not in done.stderr and "setmaxnreg" not in done.stderr


@pytest.mark.parametrize("source", ROW_SOURCES, ids=lambda path: path.stem)
def test_rows_move_in_128_bit_steps(source: Path, tmp_path: Path) -> None:
    command = ["nvcc", "-std=c++17", "-O3", "-gencode=arch=compute_90a,code=compute_90a", "-ptx"]
    command += [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc' / 'include'}", "-o", str(tmp_path / "out.ptx"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ptx = (tmp_path / "out.ptx").read_text()
    packed = [body for body in re.split(r"\.entry", ptx)[1:] if "scalar" not in body.split("(")[0]]
    assert packed
    for body in packed:
        assert re.search(r"ld\.global\S*\.v4\.[buf]32", body) and re.search(r"st\.global\S*\.v4\.[buf]32", body)


def test_hopper_words_are_one_instruction_each(tmp_path: Path) -> None:
    """Products of each type, out of shared memory and out of registers, and loads of each rank."""
    # nvcc alone may be here, without the tool that reads what it made.
    if (reason := inspect.cuda_missing()) is not None:
        pytest.skip(reason)
    cubin = tmp_path / "words.cubin"
    command = ["nvcc", "-std=c++17", "-O3", "-gencode=arch=compute_90a,code=sm_90a", "-cubin"]
    command += [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc' / 'include'}", "-o", str(cubin)]
    done = subprocess.run([*command, str(ROOT / "csrc/tests/hopper_words_sm90.cu")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listing = subprocess.run([inspect.tool("cuobjdump"), "-sass", str(cubin)], capture_output=True, text=True).stdout
    found = sorted(re.findall(r"([IQH]GMMA)\.64x128x\d+\S* R\d+, (R\d+|gdesc)", listing))
    assert [(name, source[0]) for name, source in found] == [
        (name, source) for name in ("HGMMA", "IGMMA", "QGMMA") for source in ("R", "g")
    ]
    assert sorted(re.findall(r"UTMALDG\.(\dD)", listing)) == ["2D", "3D", "4D"]
