# `make demo` and `make test` do all their set-up themselves, in .venv.
PYTHON ?= python3
BIN = .venv/bin
# Or each process would compile TensorFlow anew, which takes longer than to import it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test benchmark readme blog site clean

.venv/.installed: settings.ini setup.py pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "soundtag needs Python 3.11 or newer; call make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e '.[dev]'
	touch $@

demo: .venv/.installed
	@$(BIN)/soundtag demo

# Three at a time on two cores: one of them often waits, for a browser, a page, or a process it has begun.
test: .venv/.installed
	$(BIN)/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder --durations 15

benchmark: .venv/.installed
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable

readme: .venv/.installed
	$(BIN)/python _notebooks/build.py readme

blog: .venv/.installed
	$(BIN)/python _notebooks/build.py colab
	$(BIN)/python _notebooks/build.py blog

site: .venv/.installed
	$(BIN)/python _notebooks/build.py site

clean:
	rm -rf .venv build dist *.egg-info runs data _docs _proc
