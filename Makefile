# make run     set up and run the main job on the built-in clip (SOURCE=0: webcam, SOURCE=rtsp://...: stream)
# make test    set up and run all tests          make check   format, lint, types, known holes
# make fuzz    atheris on the parsers of settings, commands and data sets (RUNS=1000000: a million inputs each)
# make bench   speed on this machine: the network, and the pipeline (ARGS='--clip F': on that clip)
# make soak    the long forms: thousands of events through hundreds of faults; takes minutes
# make deb     Debian packages in dist/ (DEB='12 arm64': only that one; the first is Debian's release)
# make setup   .venv with what running takes     make train-setup   and what training takes
# make clean   remove what make made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# opencv-python needs a desktop's libraries to be imported at all.
OPENCV := $(shell /sbin/ldconfig -p 2>/dev/null | grep -q libGL.so.1 && \
	/sbin/ldconfig -p | grep -q libgthread-2.0.so.0 && echo desktop || echo device)
# The last tflite-runtime was built for Python 3.11.
TFLITE_RUNTIME_ENV := $(shell $(PYTHON) -c 'import sys; print(".venv-tflite-runtime/ready" if sys.version_info < (3, 12) else "")')
PACKAGING := pyproject.toml constraints.txt

.PHONY: setup train-setup run test check soak fuzz bench screenshots schemas deb clean

# Where python3-venv is missing, Python leaves an environment without pip behind, which would count as made.
.DELETE_ON_ERROR:

# An environment holds its own path, and is for one Python: in a folder that was moved or copied, and after an upgrade of
# the system, it is made anew.
MADE_FOR := $$(cd $(VENV) && pwd -P) $$($(BIN)/python -V 2>&1)
STALE := $(shell [ ! -s $(VENV)/ready ] || [ "$$(cat $(VENV)/ready)" = "$(MADE_FOR)" ] || echo stale)
ifneq ($(STALE),)
$(info make: $(VENV) was made in another place or for another Python, and is made anew)
$(shell rm -rf $(VENV))
endif

setup: $(VENV)/ready

# The version first: pip says nothing that helps, and the environment of an old Python would stay.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "make: $$($(PYTHON) -V): emotiond takes 3.10 to 3.13; name one: make PYTHON=python3.13 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Without pip it is one that a power cut left half made.
$(VENV)/ready: $(BIN)/python $(PACKAGING)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt -e '.[$(OPENCV),broker]'
	@echo "$(MADE_FOR)" >$@

train-setup: $(VENV)/ready-train

$(VENV)/ready-train: $(VENV)/ready
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $$($(BIN)/python -V) in $(VENV): training takes 3.11 or newer; make clean, then" \
	    "make PYTHON=python3.13 ..." >&2; exit 1; }
	$(PIP) -c constraints.txt -e '.[$(OPENCV),broker,train]'
	@touch $@

$(VENV)/ready-dev: $(VENV)/ready-train
	$(PIP) -c constraints.txt -e '.[$(OPENCV),broker,bundle,metrics,train,mtcnn,web,dev]'
	@touch $@

# tflite-runtime needs numpy 1, LiteRT's set has numpy 2: an environment of its own.
.venv-tflite-runtime/ready: $(PACKAGING)
	$(PYTHON) -m venv .venv-tflite-runtime
	.venv-tflite-runtime/bin/python -m pip install --quiet --disable-pip-version-check -e '.[device,tflite-runtime]'
	@touch $@

run: $(VENV)/ready
	@exec $(BIN)/emotiond run --watch $(if $(SOURCE),--source '$(SOURCE)') $(ARGS)

test: $(VENV)/ready-dev $(TFLITE_RUNTIME_ENV)
	sh tests/system_packages.sh
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tests/audit.py

soak: $(VENV)/ready-dev
	sh tests/system_packages.sh
	$(BIN)/python -m pytest -m soak -s $(ARGS)

# RUNS=1000000 takes from a minute (commands) to a quarter of an hour (a settings file).
RUNS ?= 100000
fuzz: $(VENV)/ready-dev
	$(PIP) -c constraints.txt -e '.[fuzz]'
	for parser in command config settings dataset votes picture; do \
	  PYTHONPATH=. $(BIN)/python tests/fuzz.py $$parser -runs=$(RUNS) || exit 1; done

bench: $(VENV)/ready-dev
	$(BIN)/python -m benchmarks inference
	$(BIN)/python -m benchmarks pipeline $(ARGS)

screenshots: $(VENV)/ready-dev
	PYTHONPATH=. $(BIN)/python docs/screenshots.py

schemas: $(VENV)/ready
	$(BIN)/python docs/schemas.py

deb: $(BIN)/python
	for one in $(if $(DEB),'$(DEB)','12 amd64' '12 arm64' '12 armhf' '13 amd64' '13 arm64'); do \
	  PYTHON=$(BIN)/python packaging/deb $$one || exit 1; done

clean:
	rm -rf $(VENV) .venv-tflite-runtime build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
