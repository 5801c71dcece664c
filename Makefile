# Everything runs in a virtual environment that this file makes beside itself: nothing is installed anywhere else.
#   make PYTHON=python3.12 VENV=/somewhere/else test
PYTHON ?= python3
VENV = .venv
EXTRAS = rtx,dev
ARGS =
# of trainers and builders, by make processes
KILLS = 2
# processes that share the files of tests; 0 for one that can be stopped in a debugger
WORKERS = 2

INSTALLED := $(VENV)/.installed
# what the demo needs and no more: no loggers, servers, documentation
INSTALLED_DEMO := $(VENV)/.installed-demo
comma := ,
UNFINISHED := $(VENV)/.unfinished
IN_VENV := $(VENV)/bin/python -m

.DEFAULT_GOAL := help
.PHONY: help demo picture test quick versions zoo projects conformance conformance-sample classic examples processes fuzz image windows windows-fuzz windows-artifacts samples pins docs lint types clean

help: ## say what there is
	@echo "make demo    train on handwritten digits and export for Windows, into demo_runs/ (about a minute)"
	@echo "make test    run the tests; ARGS='-k manifest' chooses some"
	@echo "make picture  draw the README's picture, the report of an example (needs chromium)"
	@echo "make quick   run the tests of what needs no engine (under a minute)"
	@echo "make versions  the same for every supported PyTorch, an environment of 6 GB each; ARGS='-s cpu' chooses one"
	@echo "make zoo     export over 100 architectures and write docs/zoo.md (a quarter of an hour)"
	@echo "make projects  train models of 20 public projects, install each, and write docs/projects.md (an hour)"
	@echo "make conformance  PyTorch's operator and module databases; writes docs/conformance.md (within two hours)"
	@echo "make conformance-sample  a fixed part of them, everyday operators first (within three minutes)"
	@echo "make examples run the other examples on small data: segmentation, text, LightningCLI, Dask (some minutes)"
	@echo "make processes  let every function fail, train in several processes, kill them (an hour or two; KILLS=200: one more)"
	@echo "make classic  check the backend tensorrt against NVIDIA's own packages (downloads them; needs cc; a minute)"
	@echo "make fuzz    read 100,000 damaged artifacts, bundles and indexes; EXAMPLES=1000 for fewer (an hour or two)"
	@echo "make image   do what examples/docker/Dockerfile does, without Docker (downloads 500 MB; some minutes)"
	@echo "make samples  compile examples/windows for Windows and run it under Wine (needs mingw-w64; downloads 170 MB)"
	@echo "make windows  run the PC's tests under a Python for Windows (Debian 12 with Wine; minutes, 1.5 GB in ~/.cache)"
	@echo "make windows-fuzz  read 10,000 damaged artifacts, bundles and indexes there; EXAMPLES=1000 for fewer"
	@echo "make pins    ask which versions that bundles name have wheels for Windows (metadata only; some minutes)"
	@echo "make docs    build the documentation into site/"
	@echo "make lint    check style and formatting with ruff"
	@echo "make types   check types with mypy"
	@echo "make clean   remove the virtual environments and what the demo made"
	@echo ""
	@echo "The first of them installs what is needed into $(VENV), in a few minutes: about 6 GB for the demo, 8 GB for the rest."
	@echo "No GPU is needed."
	@echo "PYTHON=python3.12 chooses another Python; 3.10 to 3.13 will do."

demo: $(INSTALLED_DEMO)
	@$(VENV)/bin/python examples/digits.py $(ARGS)

# the picture in the README: the report of the example with images of any size, drawn by an installed Chromium
picture: $(INSTALLED)
	@runs=$$(mktemp -d) && $(VENV)/bin/python examples/segmentation.py --directory "$$runs" && \
	$(IN_VENV) tools.report_picture "$$runs" docs/images/report.png && rm -r "$$runs"

test: $(INSTALLED)
	@$(IN_VENV) pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# the standard-library half, the order of imports, and pure functions
QUICK = tests/artifact tests/modules tests/onnx/test_providers.py tests/test_architecture.py tests/test_errors.py \
	tests/test_settings.py tests/_compat/test_rule.py
quick: $(INSTALLED)
	@$(IN_VENV) pytest --numprocesses $(WORKERS) --dist loadfile $(QUICK) --ignore tests/artifact/test_outline.py $(ARGS)

versions: $(INSTALLED)
	@$(IN_VENV) nox $(ARGS)

zoo: $(INSTALLED)
	@$(IN_VENV) pytest tests/zoo -m "zoo or not zoo" $(ARGS)

# a run that was stopped goes on where it was; conformance.jsonl holds what was found
conformance: $(INSTALLED)
	@PYTHONPATH=tests OMP_NUM_THREADS=1 $(IN_VENV) conformance --workers $(WORKERS) --page docs/conformance.md $(ARGS)

conformance-sample: $(INSTALLED)
	@PYTHONPATH=tests OMP_NUM_THREADS=1 $(IN_VENV) conformance --workers $(WORKERS) --sample --fresh \
	  --results conformance-sample.jsonl $(ARGS)

# each in an environment of its own over this one; a run that was stopped goes on where it was (projects.jsonl)
projects: $(INSTALLED)
	@PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(IN_VENV) projects --workers $(WORKERS) --page docs/projects.md $(ARGS)

classic: $(INSTALLED)
	@$(IN_VENV) pytest tests/classic -m classic $(ARGS)

examples: $(INSTALLED)
	@$(IN_VENV) pytest tests/test_examples.py -m "examples or not examples" $(ARGS)

processes: $(INSTALLED)
	@KILLS=$(KILLS) $(IN_VENV) pytest tests -m processes $(ARGS)

FUZZ = tests/artifact/test_fuzz.py tests/bundle/test_reading.py tests/storage/test_index_fuzz.py
fuzz: $(INSTALLED)
	@FUZZ_EXAMPLES=$(or $(EXAMPLES),100000) $(IN_VENV) pytest $(FUZZ) --hypothesis-show-statistics $(ARGS)

windows: $(INSTALLED)
	@$(IN_VENV) tools.windows_python test $(ARGS)

image: $(INSTALLED)
	@$(IN_VENV) pytest tests/test_containers.py -m "network or not network" $(ARGS)

samples: $(INSTALLED)
	@$(IN_VENV) pytest tests/test_windows_samples.py -m "samples or not samples" $(ARGS)

# a tenth of what the others read on Linux
windows-fuzz: $(INSTALLED)
	@FUZZ_EXAMPLES=$(or $(EXAMPLES),10000) $(IN_VENV) tools.windows_python test --numprocesses $(WORKERS) --dist loadfile $(FUZZ) $(ARGS)

windows-artifacts: $(INSTALLED)
	@$(IN_VENV) tools.windows_python record $(FOLDER)

pins: $(INSTALLED)
	@$(VENV)/bin/python tests/support/windows_wheels.py
	@$(IN_VENV) pytest tests/bundle/test_wheel.py -m network $(ARGS)

docs: $(INSTALLED)
	@NO_MKDOCS_2_WARNING=1 $(IN_VENV) mkdocs build --quiet --strict $(ARGS)

lint: $(INSTALLED)
	@$(IN_VENV) ruff check $(ARGS)
	@$(IN_VENV) ruff format --check $(ARGS)

types: $(INSTALLED)
	@$(IN_VENV) mypy $(ARGS)

clean:
	rm -rf $(VENV) .nox demo_runs

# The mark "unfinished" stands from the first step to the last, so that an installation that was interrupted is made anew,
# in whatever state it left its files; pip's cache spares the second download. $(1): extras, $(2): size on disk
define INSTALL
	@$(PYTHON) -c '' 2>/dev/null || { \
	  echo "'$(PYTHON)' does not run here. Choose a Python from 3.10 to 3.13: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "$$($(PYTHON) --version) will not do: Torch-TensorRT has wheels for Python 3.10 to 3.13."; \
	  echo "Choose another one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: its module venv or ensurepip is missing."; \
	  echo "On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@if [ -e $(UNFINISHED) ]; then \
	  echo "The last installation into $(VENV) did not finish: starting it over."; rm -rf $(VENV); fi
	@echo "Installing $(2)."
	@echo "This takes a few minutes, once; towards the end pip copies files and says nothing for a while."
	@mkdir -p $(VENV) && touch $(UNFINISHED)
	@$(PYTHON) -m venv $(VENV)
	@$(IN_VENV) pip install --disable-pip-version-check --editable '.[$(1)]'
	@rm $(UNFINISHED)
endef

$(INSTALLED): pyproject.toml
	$(call INSTALL,$(EXTRAS),PyTorch$(comma) Torch-TensorRT-RTX$(comma) Lightning and what the tests need into $(VENV): about 8 GB on disk)
	@touch $(INSTALLED) $(INSTALLED_DEMO)
	@echo "Installed."

$(INSTALLED_DEMO): pyproject.toml
	$(call INSTALL,rtx$(comma)demo,PyTorch$(comma) Torch-TensorRT-RTX and Lightning into $(VENV): about 6 GB on disk)
	@touch $(INSTALLED_DEMO)
	@echo "Installed."
