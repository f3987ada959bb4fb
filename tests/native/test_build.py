"""The library outside Python: its header, its install tree, a program that links it, its own C++ tests."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEADER_DIR = ROOT / "csrc" / "include"
CPU_SOURCES = sorted(ROOT.glob("csrc/ops/*/*_cpu.inl"))
CXX_SOURCES = sorted(
    [*ROOT.glob("csrc/common/*.cpp"), *ROOT.glob("csrc/ops/*/*.cpp"), *ROOT.glob("csrc/no_cuda/*.cpp")]
)
STRICT = ("-Wall", "-Wextra", "-Wno-psabi", "-Werror", "-fsyntax-only")

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")


def tool(name: str) -> str:
    """cmake and ninja come with the environment that runs this, or from the system."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}")
    return found


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


def cmake_build(source: Path, build: Path, *options: str) -> None:
    ninja = f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}"
    run(tool("cmake"), "-S", source, "-B", build, "-G", "Ninja", ninja, *options)
    run(tool("cmake"), "--build", build)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library with its tests, unoptimised, the portable path alone: what a machine without x86-64 builds."""
    build = tmp_path_factory.mktemp("native") / "build"
    options = ("-DWK_CUDA=OFF", "-DWK_TESTS=ON", "-DWK_FORCE_PORTABLE=ON", "-DCMAKE_BUILD_TYPE=Debug")
    cmake_build(ROOT, build, *options)
    return build


@needs_compiler
def test_header_is_strict_c99(tmp_path: Path) -> None:
    source = tmp_path / "uses_header.c"
    source.write_text('#include "wan_kernels.h"\nint main(void) { return WK_OK; }\n')
    run("cc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", f"-I{HEADER_DIR}", "-fsyntax-only", source)


@needs_compiler
def test_cpp_tests_pass_on_the_portable_path(built: Path) -> None:
    printed = run(Path(tool("cmake")).with_name("ctest"), "--test-dir", built, "--output-on-failure", "--verbose")
    assert "ran on baseline with portable: baseline" in printed


@needs_compiler
def test_installed_package_serves_the_example(built: Path, tmp_path: Path) -> None:
    run(tool("cmake"), "--install", built, "--prefix", tmp_path / "installed")
    assert (tmp_path / "installed" / "include" / "wan_kernels.h").is_file()
    cmake_build(ROOT / "examples" / "cpp", tmp_path / "example", f"-DCMAKE_PREFIX_PATH={tmp_path / 'installed'}")
    assert "rms_norm of 512 rows" in run(tmp_path / "example" / "normalise_rows")


@needs_compiler
@pytest.mark.parametrize("options", [("-DWK_X86_64=0", "-DWK_FORCE_PORTABLE=1"), ("-DWK_X86_64=0",)])
def test_sources_compile_without_x86_and_without_openmp(options: tuple[str, ...]) -> None:
    includes = (f"-I{ROOT / 'csrc'}", f"-I{HEADER_DIR}")
    common = ("c++", "-std=c++17", *STRICT, "-Wno-unknown-pragmas", *includes, *options, '-DWK_BUILD_INFO="test"')
    run(*common, *CXX_SOURCES)
    if "-DWK_FORCE_PORTABLE=1" in options:
        run(*common, "-DWK_ISA=baseline", "-x", "c++", *CPU_SOURCES)


@needs_compiler
def test_kernels_leave_no_code_that_others_could_link(tmp_path: Path) -> None:
    """An inline function outside the namespace, compiled for AVX-512, might be the copy that an old machine gets."""
    if run("c++", "-dumpmachine").split("-")[0] != "x86_64":
        pytest.skip("needs x86-64")
    wide = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni", "avx512bf16", "fma", "f16c")
    flags = ("-O2", "-std=c++17", "-w", *(f"-m{each}" for each in wide))
    defines = ("-DWK_ISA=avx512", "-DWK_X86_64=1", f"-I{ROOT / 'csrc'}", f"-I{HEADER_DIR}")
    for source in CPU_SOURCES:
        target = tmp_path / f"{source.stem}.o"
        run("c++", *flags, *defines, "-x", "c++", "-c", source, "-o", target)
        defined = run("nm", "--defined-only", "--demangle", target).splitlines()
        weak = [line for line in defined if re.search(r" [WVu] ", line) and "wk::avx512::" not in line]
        assert not weak, f"{source.name} defines {weak}"


def test_versions_agree() -> None:
    stated = re.search(r'WK_VERSION_STRING "(.+)"', (HEADER_DIR / "wan_kernels.h").read_text())
    package = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert stated is not None and package is not None
    assert stated[1] == package[1]
