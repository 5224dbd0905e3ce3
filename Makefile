# `make demo` runs the whole loop and `make test` runs all checks. Both install missing dependencies first.
VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
REWARDS := verifiable
EMPTY :=
# Several rewards are joined by "+", because a space in RUN would mean two folders, also for `clean`.
RUN := runs/demo$(if $(filter-out verifiable,$(REWARDS)),-$(subst $(EMPTY) ,+,$(strip $(REWARDS))))
MODEL := tiny
TUNED := $(RUN)/dpo

export TOKENIZERS_PARALLELISM = false

.PHONY: help install demo test lint chromium clean

help:
	@echo "make demo   runs the whole alignment loop on the tiny preset; results are in $(RUN)"
	@echo "            (REWARDS=learned: scores with the tiny networks of the four learned rewards)"
	@echo "make test   runs ruff, mypy and the test suite"
	@echo "make lint   runs ruff and mypy only"
	@echo "make clean  removes $(RUN)"

install: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade pip
	$(PYTHON) -m pip install --quiet -e '.[dev]'
	touch $(STAMP)

demo: install
	$(PYTHON) -m synthetic.make --config recipes/tiny/prompts.yaml --output $(RUN)/prompts
	$(PYTHON) -m synthetic.make --config recipes/tiny/held_out.yaml --output $(RUN)/held_out
	$(PYTHON) -m pipeline.run --config recipes/tiny/pipeline.yaml --prompts $(RUN)/prompts/prompts.parquet --model $(MODEL) --output_dir $(RUN)/preferences --rewards $(REWARDS)
	$(PYTHON) -m dpo.prepare --pairs $(RUN)/preferences/pairs --model $(MODEL) --output $(RUN)/training
	$(PYTHON) -m dpo.train --config recipes/tiny/dpo.yaml --model $(MODEL) --dataset $(RUN)/training --output_dir $(TUNED)
	$(PYTHON) -m pipeline.run --config recipes/tiny/evaluate.yaml --prompts $(RUN)/held_out/prompts.parquet --model $(MODEL) --output_dir $(RUN)/evaluation/sft
	$(PYTHON) -m pipeline.run --config recipes/tiny/evaluate.yaml --prompts $(RUN)/held_out/prompts.parquet --model $(TUNED) --output_dir $(RUN)/evaluation/dpo
	$(PYTHON) -m evaluation.run --config recipes/tiny/metrics.yaml --benchmark $(RUN)/held_out/prompts.parquet --samples $(RUN)/evaluation/sft
	$(PYTHON) -m evaluation.run --config recipes/tiny/metrics.yaml --benchmark $(RUN)/held_out/prompts.parquet --samples $(RUN)/evaluation/dpo
	$(PYTHON) -m evaluation.compare $(RUN)/evaluation/sft/evaluation $(RUN)/evaluation/dpo/evaluation

test: install chromium lint
	$(PYTHON) -m pytest tests -m "not slow" --durations=10

lint: install
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# The report's tests use a real browser. If it cannot be installed, they are skipped with a reason.
chromium:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || true

clean:
	rm -rf $(RUN)
