# Each target prepares `.venv` itself; a second call installs nothing until setup.py or constraints.txt change.
# Another interpreter: make clean test PYTHON=/path/to/python3.12

SHELL := /bin/bash
VENV := .venv
STAMP := $(VENV)/.installed
DEMO_DIR := runs/demo
# Two processes share two cores best where each computes on one.
ONE_THREAD := OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1
PYTEST := $(ONE_THREAD) $(VENV)/bin/python -m pytest --durations=10
FAST := -n 2 --dist worksteal -m "not slow and not devices"

# What tests on devices use beside `.venv`: tflite-runtime, whose last release is for Python up to 3.11, Pythons for ARM, and adb.
OLD_VENV := .venv-tflite-runtime
OLD_STAMP := $(OLD_VENV)/.installed
ARM_ROOT := .arm
ADB_ROOT := .adb

# What other versions of TensorFlow are tested in; each is beside `.venv`, as large, and has the newest of all else that goes with it.
TENSORFLOW ?= 2.16
TENSORFLOW_VENV := .venv-tensorflow-$(TENSORFLOW)

# Version managers put names on PATH that fail when called, so every candidate is run. One inside `.venv` cannot make `.venv`.
suitable = import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $(1)))
find = $(shell for python in $(2) $$(type -ap python3.11 python3.12 python3.13 python3.10 python3); do \
	[[ $$python != "$(CURDIR)/$(VENV)/"* ]] && "$$python" -c "$(call suitable,$(1))" 2>/dev/null && echo "$$python" && break; done)
SUITABLE := $(call suitable,13)
PYTHON ?= $(call find,13)
NO_PYTHON := Found no Python 3.10, 3.11, 3.12 or 3.13 that runs and has venv: install one (on Debian: apt-get install python3 \
	python3-venv) or name it with PYTHON=/path/to/python3.11.
NO_OLD_PYTHON := Found no Python 3.10 or 3.11 that runs and has venv, which tflite-runtime needs: install one (on Debian 12: \
	apt-get install python3 python3-venv) or name it with PYTHON=/path/to/python3.11.

IMPORTERS := .importers

.PHONY: demo docs test test-tensorflow test-importers test-slow test-devices test-all lint clean

demo: $(STAMP)  ## The whole job on scikit-learn's handwritten digits; called again it resumes.
	$(VENV)/bin/daqu-run --dataset=digits --space=digits --budget_minutes=4.5 --finalists=10 --architectures=search --output_dir=$(DEMO_DIR)
	@echo "The report: $(CURDIR)/$(DEMO_DIR)/report.html"

docs: $(STAMP)  ## The documentation site, which `make test-slow` builds too. The variable keeps away a notice that tells of a successor.
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo "The site: $(CURDIR)/site/index.html"

test: $(STAMP)  ## About 8 minutes on 2 cores.
	$(PYTEST) $(FAST)

# As `test`, with another TensorFlow of the range that setup.py allows: make test-tensorflow TENSORFLOW=2.16
test-tensorflow: $(TENSORFLOW_VENV)/.installed
	$(ONE_THREAD) $(TENSORFLOW_VENV)/bin/python -m pytest $(FAST)

# Before a release: whether other people's tools, which are downloaded, read files of integers and of INT4.
test-importers: $(STAMP)
	mkdir -p $(IMPORTERS)
	$(VENV)/bin/python tests/helpers/importers.py $(IMPORTERS) tflite_models/*.tflite

# By files, but those that start several processes or have so many minutes for a job, which are one group: never two of them at once.
test-slow: $(STAMP)
	$(PYTEST) -n 2 --dist loadgroup --no-loadscope-reorder -m "slow and not devices"

# All of them, this host's too, which `make test` runs as well: it is a device like the others.
test-devices: $(STAMP) $(OLD_STAMP)
	@$(VENV)/bin/python tests/devices/arm_root.py $(ARM_ROOT)
	@$(VENV)/bin/python tests/devices/adb_root.py $(ADB_ROOT)
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --durations=10 tests/devices

test-all: test test-slow test-devices

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) .venv-tensorflow-* $(OLD_VENV) $(ARM_ROOT) $(ARM_ROOT).unfinished $(ADB_ROOT) $(ADB_ROOT).unfinished $(IMPORTERS) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

# The stamp goes first and comes last: whatever kills an installation, the next call starts from an empty `.venv`.
$(STAMP): setup.py constraints.txt
	@"$(PYTHON)" -c "$(SUITABLE)" 2>/dev/null || { echo "$(NO_PYTHON)" >&2; exit 1; }
	@if [[ -e $@ ]]; then rm $@; else "$(PYTHON)" -m venv --clear $(VENV); fi
	@echo "Installing daqu_tf and its requirements into $(VENV) (the first time: a few minutes, about 3 GB) ..."
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[docs,test]'
	@touch $@

# Without constraints.txt, which pins what only the newest TensorFlow takes.
$(TENSORFLOW_VENV)/.installed: setup.py
	@"$(PYTHON)" -c "$(SUITABLE)" 2>/dev/null || { echo "$(NO_PYTHON)" >&2; exit 1; }
	@rm -f $@
	@"$(PYTHON)" -m venv --clear $(TENSORFLOW_VENV)
	@echo "Installing daqu_tf with TensorFlow $(TENSORFLOW) into $(TENSORFLOW_VENV) (a few minutes, about 3 GB) ..."
	@$(TENSORFLOW_VENV)/bin/python -m pip install -qq --disable-pip-version-check 'tensorflow==$(TENSORFLOW).*' -e '.[test]'
	@touch $@

# As above; small enough to start anew at every change.
$(OLD_STAMP): Makefile
	@rm -f $@
	@python=$(call find,11,"$(PYTHON)"); [[ $$python ]] || { echo "$(NO_OLD_PYTHON)" >&2; exit 1; }; \
		"$$python" -m venv --clear $(OLD_VENV)
	@$(OLD_VENV)/bin/python -m pip install -qq --disable-pip-version-check tflite-runtime==2.14.0 'numpy<2'
	@touch $@
