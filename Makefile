# The two commands of README: `make run` and `make test`.
VENV := .venv
PYTHON := $(VENV)/bin/python
PORT := 7860

.PHONY: run test lint clean

run: $(VENV)/installed
	$(PYTHON) app.py --port $(PORT)

test: $(VENV)/installed lint
	$(PYTHON) -m pytest

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .

$(VENV)/installed: requirements.txt
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade-strategy only-if-needed -r requirements.txt
	touch $@

clean:
	rm -rf $(VENV) tests/output
