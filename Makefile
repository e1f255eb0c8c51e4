# `make` lists what there is. The environment lives in .venv; delete that folder to begin anew.
# PYTHON=/path/to/python chooses another interpreter (3.11 or newer).

VENV := .venv
PYTHON ?= $(shell for each in python3.11 python3.12 python3.13 python3; do \
	$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$each && break; \
	done)
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check

.PHONY: help setup demo serve test faults lint bench

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/installed  ## make .venv and install what requirements.txt names

demo: $(VENV)/installed  ## run both pipelines on sample sessions and leave the server running
	@$(RUN) manage.py demo

serve: $(VENV)/installed  ## run the stack: PostgreSQL, broker, web server, workers, scheduler
	@$(RUN) manage.py serve

test: $(VENV)/installed-dev  ## run every test
	@$(RUN) -m pytest -n auto --maxprocesses=4 --dist=loadfile

faults: $(VENV)/installed-dev  ## run the long tests in which workers are killed (minutes)
	@$(RUN) -m pytest -m faults

lint: $(VENV)/installed-dev  ## check style, types, import directions, settings and migrations
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy .
	$(VENV)/bin/lint-imports
	$(RUN) manage.py check
	$(RUN) manage.py makemigrations --check --dry-run

bench: $(VENV)/installed-dev  ## measure speed (see benchmarks/)
	@for each in runs materialize labeling occupancy; do echo "== $$each"; $(RUN) benchmarks/$$each.py || exit 1; done

# A file beside the environment remembers that its requirements are installed; a changed
# requirements file, or a replaced interpreter, installs again.
$(VENV)/installed: requirements.txt $(RUN)
	@echo "Installing what requirements.txt names (minutes at first, seconds later)"
	@$(PIP) install -r requirements.txt
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	@$(PIP) install -r requirements-dev.txt
	@touch $@

# Debian's Python has no ensurepip; the system's pip can fill an environment from outside.
$(RUN):
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and was not found on the PATH:" \
		"install it, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, and $(PYTHON) is not: make PYTHON=/path/to/python3.11"; \
		exit 1; }
	@rm -rf $(VENV)
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then \
		$(PYTHON) -m venv $(VENV); \
	else \
		$(PYTHON) -m venv --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(RUN) --disable-pip-version-check install --quiet pip; \
	fi || { rm -rf $(VENV); echo "This Python can make no environment with pip in it: install your" \
		"system's packages python3-venv and python3-pip, or name another one:" \
		"make PYTHON=/path/to/python3.11"; exit 1; }
