# `make demo` and `make test` work from a fresh clone: they make .venv and install what constraints.txt pins.
PYTHON ?= $(or $(shell command -v python3.11),$(shell command -v python3))
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := demo-output

.DELETE_ON_ERROR:
.PHONY: demo test check hunt breaks rehearse rehearse-host frontends install clean

install: $(INSTALLED)

demo: export TRANSFORMERS_VERBOSITY = error
demo: export HF_HUB_DISABLE_PROGRESS_BARS = 1
demo: $(INSTALLED)
	$(BIN)/python scripts/make_demo.py $(DEMO)/world
	$(BIN)/warmstack run $(DEMO)/world/queue.jsonl --pipeline $(DEMO)/world/pipeline --loras $(DEMO)/world/loras \
		--output $(DEMO) --state $(DEMO)/state --mode both --cold --steps 6

test: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

check: test

# Property tests on new draws, state machines at length: what `make test` repeats is what was drawn once.
hunt: $(INSTALLED)
	$(BIN)/python -m pytest -q --hypothesis-profile=hunt -m "not browser and not host" tests

# Every invariant broken on purpose in a copy, to see its tests fail there. Those of the host need COMFYUI_PATH and _PYTHON.
breaks: $(INSTALLED)
	$(BIN)/python scripts/break_invariants.py $(WORDS)

# What a GPU's tests do on a simulated one, where there is none. Needs a C++ compiler.
rehearse: $(INSTALLED)
	$(BIN)/python scripts/rehearse.py

# ComfyUI on that GPU, our patches beside stock ones in its ways of loading a model. COMFYUI_PYTHON needs this torch, for CPUs.
rehearse-host: $(INSTALLED)
	$(BIN)/python scripts/rehearse.py --host

# ComfyUI's own front ends, which the browser tests serve. Without them (or without Chromium) those tests are skipped.
frontends: $(INSTALLED)
	$(BIN)/python tests/web/fetch_frontends.py

# --no-build-isolation: the build backend is pinned like everything else.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[diffusers,dev]'
	touch $@

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info
