# Everything runs in .venv, which the first target to need it creates.
PYTHON ?= $(shell command -v python3.11 || echo python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test slow lint types clean

demo: .venv/.core
	$(BIN)/stereopsis demo --output demo

test: .venv/.all
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not compile"

slow: .venv/.all
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "slow and not compile"
	STEREOPSIS_SHAPE_CHECKS=0 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m compile

lint: .venv/.all
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/.all
	$(BIN)/pyright

clean:
	rm -rf .venv demo

.venv/bin/python:
	$(PYTHON) -m venv .venv

# Naming torch's range first lets pip settle on one build before it meets the rest.
.venv/.core: pyproject.toml | .venv/bin/python
	$(PIP) install "torch>=2.11,<2.14"
	$(PIP) install -e ".[openvino]"
	touch $@

.venv/.all: pyproject.toml | .venv/bin/python
	$(PIP) install "torch>=2.11,<2.14"
	$(PIP) install -e ".[train,export,exr,hdf5,dev]"
	touch $@ .venv/.core
