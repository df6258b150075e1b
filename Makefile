# Two commands for a newcomer: make demo, make test. Each target installs what it needs.
# ARGS goes to the program behind a target: make test ARGS="tests/protocol -x".

VENV        = .venv
ORACLE      = .venv-oracle
ARGS        =
MAKEFLAGS  += --no-print-directory
environment = tools/environment

.PHONY: help demo test simulate planted kills oracle check format docs bench bench-reliable bench-peers interop interop-smoke wheels clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    install castile in $(VENV) and run castile demo"
	@echo "make test    install the test extras and run the tests"
	@echo "make simulate SEED=1 COUNT=1000   worlds with faults, audited; TIER=B with real bytes, STATE=file to go on"
	@echo "make planted the simulator's own bugs, each to be found"
	@echo "make kills SEED=1 COUNT=300   real processes killed, judged by their effects"
	@echo "make check   ruff and mypy --strict"
	@echo "make docs    the documentation, in docs/_build/html"
	@echo "make bench   measure: CPU per message, calls per second"
	@echo "make bench-reliable   what keeping costs: durable against in memory, a long sequence, many open ones"
	@echo "make bench-peers castile beside live CXF and Metro, a quarter of an hour (JDK 17 and Maven)"
	@echo "make interop castile against live CXF and Metro (needs a JDK 17 and Maven); interop-smoke: four cells"
	@echo "make wheels  whether wheels alone install castile, platform by platform"
	@echo "make clean   remove everything that these targets made"

demo:
	@$(environment) $(VENV) --editable '.[serve]'
	@$(VENV)/bin/castile demo $(ARGS)

test: oracle
	@$(environment) $(VENV) --editable '.[serve,test]'
	@CASTILE_ORACLE='$(CURDIR)/$(ORACLE)/bin/python' $(VENV)/bin/python -m pytest $(ARGS)

# A finding prints the line that repeats it, with ONLY, MESSAGES and STRAIGHT; VERBOSE=1 shows its trace.
SEED  = 1
COUNT = 1000
TIER  = A
simulate:
	@$(environment) $(VENV) --editable '.[serve,test]'
	@$(VENV)/bin/python -m tests.simulation $(SEED) $(COUNT) --tier $(TIER) $(if $(STATE),--state '$(STATE)') \
		$(if $(ONLY),--only $(ONLY)) $(if $(MESSAGES),--messages $(MESSAGES)) $(if $(STRAIGHT),--straight) \
		$(if $(VERBOSE),--verbose) $(ARGS)

planted:
	@$(environment) $(VENV) --editable '.[serve,test]'
	@$(VENV)/bin/python -m tests.simulation.planted $(ARGS)

kills: COUNT = 300
kills:
	@$(environment) $(VENV) --editable '.[serve,test]'
	@$(VENV)/bin/python -m tests.kills --count $(COUNT) --seed $(SEED)

# Independent signature libraries; castile and they never share an environment.
oracle:
	@$(environment) $(ORACLE) --only-binary=:all: --requirement tests/oracle.txt

check:
	@$(environment) $(VENV) --editable '.[serve,test,check]'
	@status=0; \
	$(VENV)/bin/python -m ruff check --quiet . || status=1; \
	$(VENV)/bin/python -m mypy || status=1; \
	exit $$status

format:
	@$(environment) $(VENV) --editable '.[serve,test,check]'
	@$(VENV)/bin/python -m ruff check --quiet --fix .

docs:
	@$(environment) $(VENV) --editable '.[docs]'
	@$(VENV)/bin/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench:
	@$(environment) $(VENV) --editable '.[serve]'
	@$(VENV)/bin/python bench/run.py $(ARGS)

bench-reliable:
	@$(environment) $(VENV) --editable '.[serve]'
	@$(VENV)/bin/python bench/reliable.py $(ARGS)

bench-peers:
	@$(environment) $(VENV) --editable '.[serve]'
	@$(VENV)/bin/python bench/peers.py $(ARGS)

interop:
	@$(environment) $(VENV) --editable '.[serve]'
	@$(VENV)/bin/python interop/run.py $(ARGS)

interop-smoke:
	@$(environment) $(VENV) --editable '.[serve]'
	@$(VENV)/bin/python interop/run.py --smoke

wheels:
	@$(environment) $(VENV) --editable '.[serve,test]'
	@$(VENV)/bin/python tools/wheels.py

clean:
	@rm -rf $(VENV) $(ORACLE) docs/_build build dist interop/.work interop/*/target .mypy_cache .pytest_cache .ruff_cache .hypothesis
