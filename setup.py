# SPDX-License-Identifier: Apache-2.0
"""Builds wan_kernels._native and libwan_kernels with CMake and Ninja; every setting lives in pyproject.toml.

Environment: WK_CUDA=AUTO|ON|OFF, and WK_CMAKE_ARGS for more arguments, separated by spaces. The build folder is kept
under build/, so that building again compiles only what changed.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def build_dir() -> Path:
    return ROOT / "build" / f"native-{sys.implementation.cache_tag}"


class CMakeBuild(build_ext):
    def build_extension(self, ext: Extension) -> None:
        configure = [
            *("cmake", "-S", str(ROOT), "-B", str(build_dir()), "-G", "Ninja"),
            "-DCMAKE_BUILD_TYPE=Release",
            "-DWK_PYTHON=ON",
            "-DWK_TESTS=OFF",
            f"-DWK_CUDA={os.environ.get('WK_CUDA', 'AUTO')}",
            # Given each time: an isolated build finds them in a folder that is gone by the next build.
            f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja')}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            *os.environ.get("WK_CMAKE_ARGS", "").split(),
        ]
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build_dir())], check=True)
        self.install_to(Path(self.get_ext_fullpath(ext.name)).resolve().parent)

    def copy_extensions_to_source(self) -> None:
        """Editable installs load from the source tree; setuptools would copy the extension without its library."""
        self.install_to(ROOT / "wan_kernels")

    def install_to(self, folder: Path) -> None:
        command = ["cmake", "--install", str(build_dir()), "--component", "python", "--prefix", str(folder)]
        subprocess.run(command, check=True)


setup(ext_modules=[Extension("wan_kernels._native", sources=[])], cmdclass={"build_ext": CMakeBuild})
