# The commands to remember. Each works from a bare checkout; repeated, it starts within seconds.
#
#   make demo         a video from a prompt
#   make test         every test but the slow ones; prints which backends ran
#   make test-slow    the slow tests
#   make check        format, lint, types, layering, fast tests
#   make bench        every op on every backend, against the reference and a plain copy
#   make sanitize     the C++ tests under the address and undefined-behaviour sanitizers
#   make gpu-report   build, test and measure on this machine's GPU; PYTHON=... as it is, no venv, no network
#   make clean        remove what was built
#
# PYTHON makes the virtual environment (3.11 or newer); PIP_ARGS goes to pip, for example an index with a CPU torch.

PYTHON ?= python3
PIP_ARGS ?=
PROMPT ?= a red circle moves right over a blue background

BIN := .venv/bin
DEPENDENCIES := .venv/.dependencies-stamp
BUILT := .venv/.built-stamp
NATIVE_SOURCES := $(shell find csrc cmake -type f) CMakeLists.txt setup.py pyproject.toml
CXX_SOURCES = $(shell find csrc examples/cpp -name '*.h' -o -name '*.c' -o -name '*.cpp' -o -name '*.inl' -o -name '*.cu' -o -name '*.cuh')
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
WITH_VENV := PATH="$(CURDIR)/$(BIN):$$PATH"

.PHONY: help demo test test-slow check format bench sanitize gpu-report clean

help:
	@sed -n '3,10s/^#   //p' Makefile

$(DEPENDENCIES): requirements.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "PYTHON must be 3.11 or newer, $(PYTHON) is not" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the versions that requirements.txt pins into .venv: minutes the first time"
	@$(PIP) $(PIP_ARGS) -r requirements.txt
	@touch $@

$(BUILT): $(DEPENDENCIES) $(NATIVE_SOURCES)
	@echo "building the native library"
	@$(WITH_VENV) $(PIP) --no-build-isolation --no-deps -e .
	@touch $@

demo: $(BUILT)
	@mkdir -p out
	$(BIN)/wan generate "$(PROMPT)" -o out/demo.mp4
	@$(BIN)/wan kernels list

test: $(BUILT)
	WAN_KERNELS_REQUIRE=cpu $(BIN)/python -m pytest
	@$(BIN)/wan kernels list

test-slow: $(BUILT)
	WAN_KERNELS_REQUIRE=cpu $(BIN)/python -m pytest -m slow

check: $(BUILT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)
	$(BIN)/mypy
	WAN_KERNELS_REQUIRE=cpu $(BIN)/python -m pytest tests/test_layering.py tests/test_dispatch.py tests/ops/test_conformance.py

format: $(DEPENDENCIES)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

bench: $(BUILT)
	$(BIN)/wan bench ops

sanitize: $(DEPENDENCIES)
	$(WITH_VENV) cmake -S . -B build/sanitize -G Ninja -DWK_SANITIZE=ON -DWK_CUDA=OFF -DWK_TESTS=ON -DCMAKE_BUILD_TYPE=Debug
	$(WITH_VENV) cmake --build build/sanitize
	$(WITH_VENV) ctest --test-dir build/sanitize --output-on-failure

gpu-report:
	@$(PYTHON) -c "import sys, torch; sys.exit(not torch.cuda.is_available())" 2>/dev/null || \
		{ echo "[gpu-report] $(PYTHON) must have a torch that sees a CUDA GPU, it has not" >&2; exit 3; }
	WK_CUDA=ON $(PYTHON) setup.py --quiet build_ext --inplace
	$(PYTHON) -m benchmarks.report

clean:
	rm -rf build dist out *.egg-info wan_kernels/*.so wan_kernels/*.so.* $(BUILT)
