# Each target sets up what it needs in .venv and does so once.
#
#   make demo        train an LSTM-GAN on the bundled data, or go on with it; results in runs/demo
#   make test        the tests
#   make bench       the benchmarks
#   make bench-quick a minute of them, beside the kept results of this device
#   make bench-full  all of them, as they are, with memory kept, and held to AVX2; saves the results
#   make figures     train each model to its figure, hours of it; python -m benchmarks.scores --list
#                    says what each takes. Writes benchmarks/results/scores and the tables of it
#   make lint        ruff and clang-format
#   make cmake-test  the kernels as a plain library, with its own test (needs cmake)
#   make cuda-archs  compile the CUDA kernels for more GPUs than an install does (needs nvcc)
#
# PYTHON           the interpreter that makes .venv (3.10 or newer)
# TORCH_INDEX_URL  the package index torch is taken from, for a machine that wants another build of
#                  it than pip's default index has
# GANLSTM_FAST_BUILD  what is compiled (setup.py says more). Unset, `make demo` compiles for the CPU
#                  alone where there is no GPU, and all other targets what the machine can

PYTHON ?= python3
TORCH_INDEX_URL ?=

VENV := .venv
BIN := $(VENV)/bin
# Python compiles what it imports at the first import, if it may: all of torch would take longer.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile)
DEVICES := $(wildcard /dev/nvidia[0-9]* /dev/dxg)

# The install is editable: only these files make it necessary again.
BUILD_FILES := setup.py pyproject.toml $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu')
CXX_FILES := $(filter csrc/%,$(BUILD_FILES)) benchmarks/measure/ceilings.cpp

BENCH := $(BIN)/python -m pytest benchmarks --benchmark-only
# An allocator that does not give memory back to the system: large buffers cost no page faults.
KEEP_MEMORY := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000
# Ours and the rivals' libraries alike. Whether MKL obeys on an AMD processor is not known.
HOLD_TO_AVX2 := GANLSTM_FAST_CPU_ISA=avx2 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 \
  MKL_ENABLE_INSTRUCTIONS=AVX2

.PHONY: demo test bench bench-quick bench-full bench-default bench-kept-memory bench-avx2 figures lint cmake-test cuda-archs clean

demo: $(VENV)/.train
	@echo "== training and scores: usually 3 to 4 minutes"
	$(BIN)/ganlstm-fast train $(if $(wildcard runs/demo/checkpoint.pt),--resume,--out) runs/demo

test: $(VENV)/.test
	$(BIN)/python -m pytest tests -n auto --dist loadfile

bench: $(VENV)/.test
	$(BENCH)

# A slower row does not fail it.
bench-quick: $(VENV)/.test
	@rm -f build/quick.json && mkdir -p build
	-$(BENCH) --quick $(BENCH_OPTIONS) --benchmark-json=build/quick.json
	$(BIN)/python -m benchmarks.report --compare benchmarks/results build/quick.json

bench-full: bench-default bench-kept-memory bench-avx2

bench-default: $(VENV)/.test
	$(BENCH) --full --save-results

bench-kept-memory: $(VENV)/.test
	$(KEEP_MEMORY) $(BENCH) --full --save-results

bench-avx2: $(VENV)/.test
	$(KEEP_MEMORY) $(HOLD_TO_AVX2) $(BENCH) --full --save-results

# What one that failed had before stays, and the others are written; it fails in the end.
figures: $(VENV)/.test
	$(BIN)/python -m benchmarks.scores --list
	$(BIN)/python -m benchmarks.scores --all; status=$$?; \
	  $(BIN)/python -m benchmarks.text_stages || status=1; \
	  $(BIN)/python -m benchmarks.report --update-readme && exit $$status

lint: $(VENV)/.tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

cmake-test:
	cmake -S . -B build/cmake
	cmake --build build/cmake --parallel
	ctest --test-dir build/cmake --output-on-failure

cuda-archs: $(VENV)/.tools
	GANLSTM_FAST_CUDA_ARCHS="80;86;89;90;100;120" $(BIN)/python setup.py build_ext

clean:
	rm -rf $(VENV) build dist *.egg-info ganlstm_fast/*.so

# Torch goes first and alone: the index it comes from need not have the other packages.
$(VENV)/.torch: requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "ganlstm_fast needs Python 3.10 or newer; name one with PYTHON=..." >&2; exit 1; }
	@echo "== an environment with torch in $(VENV): usually half a minute, and the download"
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) "$$(grep '^torch==' $<)"
	@touch $@

$(VENV)/.tools: requirements-dev.txt $(VENV)/.torch
	$(PIP) -r $<
	@touch $@

# In a folder of its own: the environment has the Triton that torch runs with.
$(VENV)/.lowest: requirements-lowest.txt $(VENV)/.tools
	rm -rf $(VENV)/triton-lowest
	$(PIP) --no-deps --target $(VENV)/triton-lowest -r $<
	@touch $@

$(VENV)/.train: $(VENV)/.torch $(BUILD_FILES)
	@echo "== compiling the kernels, and what training needs: usually 1 to 2 minutes$(if $(DEVICES), and 3 for the GPU's)"
	$(if $(DEVICES),,GANLSTM_FAST_BUILD=$${GANLSTM_FAST_BUILD:-cpu}) $(PIP) -e '.[train]'
	@touch $@

$(VENV)/.test: $(VENV)/.tools $(VENV)/.lowest $(BUILD_FILES)
	@echo "== compiling the kernels, for the GPU too where nvcc is, and what the tests need"
	$(PIP) -e '.[test,train]'
	@touch $(VENV)/.train $@
