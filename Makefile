# A variable PYTHON may name another interpreter (3.11 to 3.13).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: quick test check bench wheel clean

quick: $(VENV)/run.stamp
	@$(BIN)/python -m wansweep +sweep=quick

test: $(VENV)/dev.stamp
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not alone"; beside=$$?; $(BIN)/python -m pytest -m alone && exit $$beside

check: $(VENV)/dev.stamp
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports && $(BIN)/mypy

bench: $(VENV)/dev.stamp
	@$(BIN)/python -m benchmarks

wheel: $(VENV)/dev.stamp
	@$(BIN)/pip wheel -q --no-deps -w dist .

clean:
	@rm -rf $(VENV) dist build

$(VENV)/run.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -m venv $(VENV) && $(BIN)/pip install -q -c constraints.txt -e . && touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -m venv $(VENV) && $(BIN)/pip install -q -c constraints.txt -e .[dev] && touch $@
