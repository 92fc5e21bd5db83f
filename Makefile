# Every target makes .venv from requirements.lock when it is missing or stale.
# Needed: Python 3.11 to 3.13, make and a package registry.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
EXTRAS := experiments book cluster attacks
GROUPS := dev

# One process per core with one thread each beats threads (see book/reproduce.md).
export OMP_NUM_THREADS ?= 1

# TORCH=cpu makes a .venv without CUDA; it stays so until `make clean`.
TORCH ?= $(shell cat .venv/.torch 2>/dev/null)
ifneq ($(filter-out cpu,$(TORCH)),)
$(error TORCH must be cpu or nothing; got $(TORCH))
endif
PINNED := $(shell sed -nE 's/^(torch(vision)?==[^ ]+).*/\1/p' requirements.lock)
FOR_CUDA := torch(vision)?|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+

# The programs of a .venv name its place: one that was moved or copied is made anew, and
# so is one with CUDA where none is wanted.
MOVED := test ! -L .venv -a -s $(READY) && test "$$(cat $(READY))" != "$$(pwd -P)"
OTHER := test ! -L .venv -a -s $(READY) && test "$(TORCH)" != "$$(cat .venv/.torch 2>/dev/null)"
ifneq ($(shell { { $(MOVED); } || { $(OTHER); }; } && echo anew),)
.PHONY: $(READY)
endif

.PHONY: help book site pdf figures labs test bench gpu lock clean
help:
	@echo "make book   run every chapter here, at the smoke preset, into _build/book/html"
	@echo "make site   draw the published edition from book/results, into _build/site/html"
	@echo "make pdf    print the published edition, _build/site/widemin.pdf, and link it; takes a Chromium"
	@echo "make figures  each figure of it as SVG and PDF; takes a Chromium"
	@echo "make labs   the five labs, for students and for instructors, into _build/labs"
	@echo "make test   the fast tests, ruff and mypy"
	@echo "make bench  measure speed against named peers"
	@echo "make book TORCH=cpu  without CUDA, 4 GB less; so with every target but gpu"
	@echo "make gpu    tests and speed on a GPU, three minutes; PYTHON=python3 READY= takes no .venv"
	@echo "make lock   write requirements.lock anew from pyproject.toml"
	@echo "make clean  remove .venv and _build, except courses that \`make labs\` made"

book: $(READY)
	$(BIN)/widemin run all --preset smoke

site: $(READY)
	$(BIN)/widemin book --edition site

pdf: $(READY)
	$(BIN)/widemin book --edition site --pdf

figures: $(READY)
	$(BIN)/widemin book --edition site --figures

labs: $(READY)
	$(BIN)/uv pip install -q -c requirements.lock --group teach
	$(BIN)/widemin labs

test: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy & types=$$!; \
	$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder; tests=$$?; \
	wait $$types && exit $$tests

bench: $(READY)
	test -d _build/peers || \
	  $(BIN)/uv pip install -q --no-deps --target _build/peers torchattacks==3.5.1
	PYTHONPATH=_build/peers $(BIN)/python -W ignore -m tests.benchmarks
	$(BIN)/python -W ignore -m tests.benchmarks.rates

gpu: $(READY)
	@$(if $(READY),$(BIN)/python,$(PYTHON)) -W ignore -m tests.benchmarks.gpu

lock: $(READY)
	$(BIN)/uv pip compile pyproject.toml $(EXTRAS:%=--extra %) \
	  $(GROUPS:%=--group %) --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-annotate --no-header -q -o requirements.lock

clean:
	rm -rf .venv
	@for made in _build/*; do \
	  if test "$$made" = _build/labs || \
	    test -n "$$(find "$$made" -name .widemin-labs.json -print -quit 2>/dev/null)"; \
	  then ! test -d "$$made" || echo "$$made is kept: it may hold submissions and grades"; \
	  else rm -rf "$$made"; fi; \
	done; \
	rm -f _build/.lock; rmdir _build 2>/dev/null || :

# uv comes from the PATH or, pinned and hashed, from the lock; without it pip does the work.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "widemin needs Python 3.11 to 3.13; '$(PYTHON)' is not. Try make PYTHON=python3.12" >&2; exit 2; }
	@set -e; \
	if $(MOVED); then rm -rf .venv; fi; \
	if command -v uv >/dev/null; then \
	  uv=uv; test -x $(BIN)/python || uv venv -q --python "$(PYTHON)" .venv; \
	else \
	  uv=$(BIN)/uv; test -x $(BIN)/python || $(PYTHON) -m venv .venv; \
	  if ! test -x $$uv; then \
	    sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .venv/uv.txt; \
	    $(BIN)/python -m pip install -q --require-hashes -r .venv/uv.txt || true; \
	    test -x $$uv || uv=; \
	  fi; \
	fi; \
	lock=requirements.lock; size="about 6 GB with CUDA"; export VIRTUAL_ENV="$(CURDIR)/.venv"; \
	if test "$(TORCH)" = cpu; then \
	  test -n "$$uv" || { echo "TORCH=cpu needs uv, which could not be had" >&2; exit 2; }; \
	  lock=.venv/cpu.lock; size="without CUDA"; \
	  sed -E '/^($(FOR_CUDA))==/,/[^\\]$$/d' requirements.lock > $$lock; \
	fi; \
	echo "Making .venv from requirements.lock ($$size; minutes on a slow line)"; \
	trap 'test $$? = 0 || echo "Packages could not be had (is there a network?); the same call goes on" >&2' EXIT; \
	if test -n "$$uv"; then \
	  $$uv pip sync -q --compile-bytecode --require-hashes $$lock; \
	  $(if $(TORCH),$$uv pip install -q -c $$lock --torch-backend cpu $(PINNED);) \
	  $$uv pip install -q --no-deps -e .; \
	else \
	  $(BIN)/python -m pip install -q --require-hashes -r requirements.lock; \
	  $(BIN)/python -m pip install -q --no-deps -e .; \
	fi
	@echo "$(TORCH)" > .venv/.torch
	@pwd -P > $@
