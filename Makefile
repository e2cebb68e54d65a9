# make demo | test | test-all | bench | lint | clean: see `make help`. Everything is installed into .venv.
# PYTHON=python3.12 chooses the interpreter (3.11 or newer), ARGS="-k arp" goes to the program behind a target.

PYTHON ?=
ARGS ?=
MODULES ?=
SECONDS ?= 60
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-all bench goodput compliance mutants fuzz fuzz-night lint plots tutorial screenshots wheel clean distclean

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: $(VENV)/.demo ## watch a file cross four processes; everything stops again at the end
	@$(BIN)/python examples/demo.py $(ARGS)

test: $(VENV)/.dev ## all tests, of large matrices a sample
	@$(BIN)/python scripts/test.py $(ARGS)

test-all: $(VENV)/.dev ## all tests, large matrices whole
	@$(BIN)/python scripts/test.py --all $(ARGS)

bench: $(VENV)/.dev ## measure; BENCH_JSON=FILE writes every figure
	@$(BIN)/python -m benchmarks.bench $(ARGS)

goodput: $(VENV)/.dev ## goodput beside Linux's under loss; GOODPUT_JSON=FILE writes every figure
	@$(BIN)/python -m benchmarks.goodput $(ARGS)

lint: $(VENV)/.dev ## ruff, mypy --strict, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fuzz: $(VENV)/.dev ## fuzz every core, SECONDS=60 together
	@$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS) $(ARGS)

fuzz-night: $(VENV)/.dev ## the same for eight hours, and keep what reaches new code
	@$(BIN)/python -m tests.fuzz.run --seconds 28800 --keep $(ARGS)

compliance: $(VENV)/.dev ## write docs/rfc-compliance.md and docs/socket-compat.md from marks and tables
	@$(BIN)/python -m tests.rfc.compliance $(ARGS)
	@$(BIN)/python -m tests.compat.sockets $(ARGS)

mutants: $(VENV)/.dev ## mutation testing of layers/tcp and layers/ip (hours; goes on where it was): MODULES=layers.tcp.rto
	@$(BIN)/python -c 'import mutmut, coverage' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check 'mutmut>=3.8,<3.9' 'coverage>=7.6'
	@$(BIN)/python -m tests.mutants.run $(MODULES) $(ARGS)

plots: $(VENV)/.dev ## draw docs/plots anew: windows and sequence over time, by algorithm
	@$(BIN)/python -m benchmarks.plots $(ARGS)

screenshots: $(VENV)/.dev ## take docs/screenshots anew: the web view in headless Chromium
	@LEVELIP_SCREENSHOTS=docs/screenshots $(BIN)/pytest tests/system/test_web.py tests/system/test_web_files.py $(ARGS)

tutorial: $(VENV)/.dev ## write docs/tutorial anew from runs of the lessons
	@$(BIN)/python scripts/tutorial.py $(ARGS)

wheel: $(VENV)/.dev ## build the wheel, install it elsewhere and run it
	@bash scripts/try-wheel.sh

# Stamps: installed again when what is needed may have changed. Without network this works once all is installed.
$(VENV)/.demo: pyproject.toml scripts/setup.sh
	@PYTHON="$(PYTHON)" bash scripts/setup.sh demo
	@touch $@

$(VENV)/.dev: pyproject.toml scripts/setup.sh scripts/cpython-tests.sh
	@PYTHON="$(PYTHON)" bash scripts/setup.sh dev
	@touch $@ $(VENV)/.demo

clean: ## remove what was built and written, but .venv
	@bash scripts/clean.sh

distclean: clean ## and .venv
	@rm -rf $(VENV)
