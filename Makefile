# Two commands do everything on a fresh machine: `make demo` and `make test`. Both set up what they need, and may be
# run again without harm. The lab needs root on Linux.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help demo test lint unit lab-test etcd-3.6 lab-test-3.6 stores faults sweep bench setup tools lock docs clean

help:
	@echo "make demo    boot a lab, restore it, kill the engine half-way, resume, prove the result (under 90 s)"
	@echo "make test    ruff, mypy --strict, and all tests, the lab's included: what CI runs"
	@echo "make faults  everything that is known to go wrong, on the lab, as a table (20 minutes)"
	@echo "make etcd-3.6      build etcd 3.6 from its Go modules into the cache (needs Go)"
	@echo "make lab-test-3.6  the tests on the lab, with that etcd"
	@echo "make stores  build the object stores that the tests start into the cache (S3 and GCS need Go, Azure needs npm)"
	@echo "make sweep   the whole crash sweep on the fake: every moment, every kind of accident (an hour)"
	@echo "make bench   the figures, measured on this machine"
	@echo "make docs    draw the state tables into the README, write docs/checks.md"
	@echo "make lock    renew the locked versions in constraints.txt"
	@echo "make clean   remove the virtual environment and the caches of the tools"

demo: setup tools
	$(BIN)/python tests/demo.py

test: setup tools lint
	if command -v go > /dev/null; then $(BIN)/python -m runbook.lab.etcdbuild; fi
	$(BIN)/python -m tests.stores.building || true
	sh tests/all.sh $(BIN)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: setup
	$(BIN)/pytest -q -m "not sweep and not lab"

lab-test: setup tools
	$(BIN)/pytest -q -m "lab and not fault"

etcd-3.6: setup
	$(BIN)/python -m runbook.lab.etcdbuild

lab-test-3.6: setup tools etcd-3.6
	RUNBOOK_LAB_ETCD=3.6 $(BIN)/pytest -q -m "lab and not sweep" tests/lab

stores: setup
	$(BIN)/python -m tests.stores.building

faults: setup tools
	$(BIN)/python -m tests.faults.table --sessions 4

sweep: setup
	$(BIN)/pytest -q --timeout 7200 -m "sweep" --durations 10

bench: setup tools
	$(BIN)/python tests/bench/startup.py
	$(BIN)/python tests/bench/staging.py
	$(BIN)/python tests/bench/outage.py
	$(BIN)/python tests/bench/reading.py
	$(BIN)/python -m tests.bench.shipping
	$(BIN)/python -m tests.bench.shipping --over-ssh
	$(BIN)/python -m tests.bench.verifying
	$(BIN)/python -m tests.bench.objectstores

docs: setup
	$(BIN)/python -m runbook.lifecycle README.md
	$(BIN)/python -m runbook.checkdocs docs/checks.md

setup: $(READY)

$(READY): pyproject.toml constraints.txt tests/setup.sh
	PYTHON=$(PYTHON) sh tests/setup.sh $(VENV)
	touch $(READY)

tools: setup
	$(BIN)/python -m runbook.lab.toolchain

lock: setup
	$(BIN)/pip freeze --all --exclude-editable | grep -vi "^runbook" > constraints.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
