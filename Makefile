# Commands of d2serve. The first run of any target creates .venv and installs everything.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
D2SERVE := $(VENV)/bin/d2serve
CREATED := $(VENV)/.created
INSTALLED := $(VENV)/.installed
BROWSER := $(VENV)/.browser
SDK_VENV := .venv-sagemaker
SDK_INSTALLED := $(SDK_VENV)/.installed
SDK_REQUIREMENTS := tests/serving/sdk/requirements.txt
CLIENTS_VENV := .venv-clients
CLIENTS_INSTALLED := $(CLIENTS_VENV)/.installed
CLIENTS_REQUIREMENTS := tests/serving/clients/requirements.txt
LABELLING_VENV := .venv-labelling
LABELLING_INSTALLED := $(LABELLING_VENV)/.installed
LABELLING_REQUIREMENTS := tests/integrations/requirements.txt
VISION_VENV := .venv-vision
VISION_INSTALLED := $(VISION_VENV)/.installed
VISION_REQUIREMENTS := tests/integrations/vision/requirements.txt
CONTAINER_VENV := .venv-container
CONTAINER_INSTALLED := $(CONTAINER_VENV)/.installed
CONTAINER_REQUIREMENTS := constraints-sagemaker.txt
DOCS_VENV := .venv-docs
DOCS_INSTALLED := $(DOCS_VENV)/.installed
DOCS_REQUIREMENTS := constraints-docs.txt
RAY_VENV := .venv-ray
RAY_INSTALLED := $(RAY_VENV)/.installed
RAY_REQUIREMENTS := constraints-ray.txt
SHAPES := models/shapes
SHAPES_MAR := model-store/shapes.mar
SOURCES := $(shell find handler -name '*.py' -o -name '*.yaml' -o -name '*.xml' -o -name '*.json' 2>/dev/null)
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
# Of tools for the tests: exact versions of everything. The tests import a small part of it, and
# compile that.
PIP_INSTALL_TOOLS := $(PIP_INSTALL) --no-compile --no-deps

# Make passes variables of its command line to recipes through the environment. The recipes expand
# them in the shell ("$$NAME"), so that spaces and quotes survive. Commands that run a server are
# exec'd, because make forwards SIGTERM to its child only, and a shell would not pass it on.

# $(call options,NAME MAX_INSTANCES): --name "$NAME" --max-instances "$MAX_INSTANCES", where set.
option_name = --$(shell echo $(1) | tr A-Z_ a-z-)
options = $(foreach name,$(1),$${$(name):+$(call option_name,$(name)) "$$$(name)"})
# $(call flags,DRY_RUN): --dry-run, where set.
flags = $(foreach name,$(1),$${$(name):+$(call option_name,$(name))})
# $(call repeated,ALARMS,--alarm): --alarm WORD for each word of $ALARMS.
repeated = $$(for word in $$$(1); do printf -- '$(2) %s ' "$$word"; done)
# $(call require,NAME): print the usage and exit with 2 where one is not set.
require = @$(foreach name,$(1),[ -n "$$$(name)" ] &&) true || { \
  echo "usage: make $@ $(foreach name,$(1),$(name)=...); \`make help\` lists the optional variables" >&2; exit 2; }
# Variables that deploy and transform share.
AWS_OPTIONS = $(call options,REGION CONTAINER IMAGE ROLE BUCKET PREFIX KMS_KEY INSTANCE INSTANCES SUBNETS SECURITY_GROUPS) \
  $(call flags,NETWORK_ISOLATION DRY_RUN) $(call repeated,CONTAINER_ENV,--env)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo serve predict playground archive package sagemaker-local deploy undeploy transform batch clarify loadtest soak \
  bench bench-peers bench-gpu test environments fuzz test-pythons lint format docs postman sbom clean

help: ## List the commands
	@awk -F ' ?## ' '/^[a-z-]+:.*## / { sub(/:.*/, "", $$1); printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(SHAPES_MAR) ## Serve the bundled model, send its sample images, write overlays to out/
	@exec $(D2SERVE) demo

# The words of MODELS may be patterns, those of CORS_ORIGINS may not.
serve: $(if $(MODEL)$(MODELS),$(INSTALLED),$(SHAPES_MAR)) $(if $(filter ray,$(SERVER)),$(RAY_INSTALLED)) ## Serve in the foreground: [MODEL=model-store/NAME.mar] [SERVER=torchserve|asgi|ray] [PORT=8080] [ADDRESS=0.0.0.0] [CERTIFICATE= KEY=] [CORS_ORIGINS=] [MODELS= TOKEN_FILE= GRPC_PORT=]
	@set -- $$MODELS; set -f; exec $(if $(filter ray,$(SERVER)),$(RAY_VENV)/bin/d2serve,$(D2SERVE)) serve $${MODEL:+"$$MODEL"} "$$@" \
	  $(call options,SERVER PORT ADDRESS METRICS_ADDRESS CERTIFICATE KEY) $(call repeated,CORS_ORIGINS,--cors-origin) \
	  $(call options,TOKEN_FILE GRPC_PORT FORWARDED_ALLOW_IPS FORWARD_TIMEOUT)

# A TOKEN in the environment may belong to another program.
predict: $(INSTALLED) ## Send an image or a folder to a server or endpoint: IMAGE= [URL=] [TOKEN=] [CA=] [OVERLAY=] [COCO=] [MASKS=] [SCORE_THRESHOLD=] [ENDPOINT=] [REGION=] [TARGET_MODEL=]
	$(call require,IMAGE)
	@D2SERVE_TOKEN="$(if $(filter command,$(origin TOKEN)),$$TOKEN,$$D2SERVE_TOKEN)" \
	  $(D2SERVE) predict "$$IMAGE" $(call options,URL CA OVERLAY COCO MASKS SCORE_THRESHOLD ENDPOINT REGION TARGET_MODEL)

playground: $(INSTALLED) ## The playground page in front of a server or endpoint: [URL=] [TOKEN_FILE=] [CA=] [ENDPOINT=] [REGION=] [TARGET_MODEL=] [PORT=8090] [OPEN=1]
	@exec $(D2SERVE) playground $(call options,URL TOKEN_FILE CA ENDPOINT REGION TARGET_MODEL PORT) $(call flags,OPEN)

archive: $(INSTALLED) ## Detectron2 config and checkpoint to model-store/NAME.mar: CONFIG= WEIGHTS= NAME= [CLASSES=] [WEIGHTS_KEY=model] [RUNTIME=auto] [IGNORE_KEYS='INPUT.SLICE_* WANDB'] [PRECISION=int8 CALIBRATION=folder] [AUGMENT=1]
	$(call require,CONFIG WEIGHTS NAME)
	@set -f; $(D2SERVE) archive $(call options,CONFIG WEIGHTS NAME CLASSES WEIGHTS_KEY RUNTIME PRECISION CALIBRATION) \
	  $(call repeated,IGNORE_KEYS,--ignore-key) $(call flags,AUGMENT)

package: $(INSTALLED) ## model-store/NAME.mar to NAME.tar.gz for one of SageMaker's containers: NAME= [CONTAINER=ray|pytorch] [MULTI_MODEL=1]
	$(call require,NAME)
	@$(D2SERVE) package $(call options,NAME CONTAINER) $(call flags,MULTI_MODEL)

# The container is that of the package; CONTAINER decides which one's packages are installed.
sagemaker-local: $(INSTALLED) $(if $(or $(MULTI_MODEL),$(filter pytorch,$(CONTAINER))),$(CONTAINER_INSTALLED),$(RAY_INSTALLED)) ## Serve a package in AWS's container, without Docker: NAME= [CONTAINER=ray|pytorch] [PORT=8080] [MULTI_MODEL=1]
	$(call require,NAME)
	@exec $(D2SERVE) sagemaker-local $(call options,NAME CONTAINER PORT) $(call flags,MULTI_MODEL)

deploy: $(INSTALLED) ## Package to a SageMaker endpoint: NAME= ENDPOINT= [MODE=realtime|serverless|async|mme] [CONTAINER=] [IMAGE=] [INSTANCE=] [ROLE=] [REGION=] [DRY_RUN=1]
	$(call require,NAME ENDPOINT)
	@exec $(D2SERVE) deploy $(AWS_OPTIONS) $(call options,NAME ENDPOINT MODE MAX_INSTANCES MIN_INSTANCES TARGET_INVOCATIONS) \
	  $(call options,MEMORY_MB MAX_CONCURRENCY DATA_CAPTURE OUTPUT SUCCESS_TOPIC ERROR_TOPIC) $(call repeated,ALARMS,--alarm)

undeploy: $(INSTALLED) ## Remove an endpoint and the resources that deploy created: ENDPOINT= [REGION=] [DRY_RUN=1]
	$(call require,ENDPOINT)
	@exec $(D2SERVE) undeploy $(call options,ENDPOINT REGION) $(call flags,DRY_RUN)

transform: $(INSTALLED) ## SageMaker batch transform over images in S3: NAME= INPUT=s3:// OUTPUT=s3:// [CONTAINER=] [INSTANCE=] [ROLE=] [REGION=] [DRY_RUN=1]
	$(call require,NAME INPUT OUTPUT)
	@exec $(D2SERVE) transform $(AWS_OPTIONS) $(call options,NAME INPUT OUTPUT REQUESTS_AT_ONCE MAX_PAYLOAD_MB CONTENT_TYPE ACCEPT)

batch: $(RAY_INSTALLED) $(if $(MODEL),,$(SHAPES_MAR)) ## Process images offline with Ray Data: INPUT= OUTPUT= [MODEL=model-store/NAME.mar] [FORMAT=parquet|coco|jsonl] [MASKS=rle|polygon|none] [OVERLAYS=]
	$(call require,INPUT OUTPUT)
	@exec $(RAY_VENV)/bin/d2serve batch "$${MODEL:-$(SHAPES_MAR)}" $(call options,INPUT OUTPUT FORMAT MASKS OVERLAYS)

clarify: $(INSTALLED) ## Write SageMaker Clarify's analysis_config.json: ENDPOINT= [NAME=] [DATASET=s3://] [FILE=out/analysis_config.json]
	$(call require,ENDPOINT)
	@$(D2SERVE) clarify $(call options,ENDPOINT NAME DATASET) $${FILE:+--output "$$FILE"}

loadtest: $(if $(or $(MODEL),$(URL)),$(INSTALLED),$(SHAPES_MAR)) ## Load test with a report in out/loadtest/: [MODEL=] [URL=] [IMAGES=] [P99_MS=] [QUICK=1]
	@exec $(D2SERVE) loadtest $(call options,MODEL URL IMAGES P99_MS) $(call flags,QUICK)

soak: $(if $(MODEL),$(INSTALLED),$(SHAPES_MAR)) ## Mixed traffic and faults, report in out/soak/: [SERVER=torchserve] [MINUTES=30] [CLIENTS=32] [HOSTILE=0.1] [KILL_EVERY=300] [MODEL=] [IMAGES=]
	@exec $(D2SERVE) bench soak $(call options,SERVER MINUTES CLIENTS HOSTILE KILL_EVERY MODEL IMAGES)

# The words of BENCH become options: make bench BENCH="--only masks --rounds 31".
bench: $(INSTALLED) ## Time every stage and whole requests beside baselines, results in out/bench/: [BENCH="--quick ..."]
	@exec $(D2SERVE) bench stages $$BENCH

bench-peers: $(INSTALLED) $(CONTAINER_INSTALLED) ## Requests/s beside other servers of the same model, over HTTP: [BENCH="--models shapes r50 ..."]
	@exec $(D2SERVE) bench baselines $$BENCH

bench-gpu: $(INSTALLED) ## On a machine with a CUDA GPU: forward pass, whole requests and HTTP: [BENCH=]
	@exec $(D2SERVE) bench gpu $$BENCH

# Tests start several processes; OpenMP threads that spin while they wait would slow them down. The
# tests of a file or of a server run in one process and share their servers (tests/conftest.py).
# Without bytecode each server would compile the package again.
test: ## Run all tests, with a real TorchServe: [PROCESSES=4]
	@$(MAKE) --no-print-directory --jobs=4 environments
	@PYTHONDONTWRITEBYTECODE= OMP_WAIT_POLICY=$${OMP_WAIT_POLICY:-PASSIVE} $(RUN) -m pytest --numprocesses "$${PROCESSES:-4}" --dist loadgroup --no-loadscope-reorder

environments: $(INSTALLED) $(BROWSER) $(SDK_INSTALLED) $(CLIENTS_INSTALLED) $(LABELLING_INSTALLED) $(VISION_INSTALLED) $(DOCS_INSTALLED) $(CONTAINER_INSTALLED) $(RAY_INSTALLED)

fuzz: $(INSTALLED) ## Send mutated requests to the pipeline, a tenth of them to a server; read mutated images and checkpoints: [EXAMPLES=20000]
	@D2SERVE_FUZZ_EXAMPLES="$${EXAMPLES:-20000}" $(RUN) -m pytest -s --hypothesis-show-statistics tests/fuzz

test-pythons: $(INSTALLED) ## Run the unit tests under each installed Python from 3.10 to 3.13
	@$(RUN) -m scripts.pythons

lint: $(INSTALLED) ## Check style, formatting, types, layers and wording
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check
	@$(RUN) -m mypy
	@$(VENV)/bin/lint-imports
	@$(RUN) -m scripts.check_language

format: $(INSTALLED) ## Format the code as `make lint` requires
	@$(RUN) -m ruff check --fix
	@$(RUN) -m ruff format

# With --quiet, MkDocs would not count warnings.
docs: $(INSTALLED) $(DOCS_INSTALLED) ## Build the documentation site in out/site/, and check its links
	@NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict
	@$(RUN) -m scripts.site_links out/site

postman: $(INSTALLED) ## Write a Postman collection from docs/openapi.yaml to out/
	@$(RUN) -m scripts.postman

# The environment of the tests also contains development tools.
sbom: $(INSTALLED) $(CONTAINER_INSTALLED) ## Write a CycloneDX bill of the packages that serving needs: [FILE=out/sbom.cdx.json]
	@mkdir -p "$$(dirname "$${FILE:-out/sbom.cdx.json}")"
	@$(VENV)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
	  --output-file "$${FILE:-out/sbom.cdx.json}" $(CONTAINER_VENV)

clean: ## Remove all environments, archives, packages and outputs
	rm -rf .venv .venv-* out logs model-store/*.mar model-store/*.tar.gz .*_cache
	find handler scripts bench tests models -name __pycache__ -type d -prune -exec rm -rf {} +

$(SHAPES_MAR): $(filter-out %.md,$(wildcard $(SHAPES)/*.*)) $(SOURCES) pyproject.toml | $(INSTALLED)
	@$(D2SERVE) archive --config $(SHAPES)/config.yaml --weights $(SHAPES)/model_final.pth \
	  --classes $(SHAPES)/classes.json --name shapes --model-store $(@D)

# Playwright's own browsers are not on the package index.
$(BROWSER): | $(CREATED)
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && echo "Installing Chromium, for the tests of the playground." \
	  && apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null; } \
	  || echo "The tests of the playground are skipped: install chromium."
	@touch $@

$(SDK_INSTALLED): $(SDK_REQUIREMENTS) | $(CREATED)
	@echo "Installing the SageMaker SDK's serializers into $(SDK_VENV), for the tests."
	@$(RUN) -m venv $(SDK_VENV)
	@$(SDK_VENV)/bin/python $(PIP_INSTALL_TOOLS) -r $(SDK_REQUIREMENTS)
	@touch $@

$(CLIENTS_INSTALLED): $(CLIENTS_REQUIREMENTS) | $(CREATED)
	@echo "Installing Triton's and KServe's clients into $(CLIENTS_VENV), for the tests."
	@$(RUN) -m venv $(CLIENTS_VENV)
	@$(CLIENTS_VENV)/bin/python $(PIP_INSTALL_TOOLS) -r $(CLIENTS_REQUIREMENTS)
	@touch $@

$(LABELLING_INSTALLED): $(LABELLING_REQUIREMENTS) | $(CREATED)
	@echo "Installing the packages of labelling tools into $(LABELLING_VENV), for the tests."
	@$(RUN) -m venv $(LABELLING_VENV)
	@$(LABELLING_VENV)/bin/python $(PIP_INSTALL_TOOLS) -r $(LABELLING_REQUIREMENTS)
	@touch $@

$(DOCS_INSTALLED): $(DOCS_REQUIREMENTS) | $(CREATED)
	@echo "Installing MkDocs into $(DOCS_VENV), for the documentation site."
	@$(RUN) -m venv $(DOCS_VENV)
	@$(DOCS_VENV)/bin/python $(PIP_INSTALL_TOOLS) -r $(DOCS_REQUIREMENTS)
	@touch $@

$(VISION_INSTALLED): $(VISION_REQUIREMENTS) | $(CREATED)
	@echo "Installing FiftyOne, supervision and inference-sdk into $(VISION_VENV), for the tests."
	@$(RUN) -m venv $(VISION_VENV)
	@$(VISION_VENV)/bin/python $(PIP_INSTALL_TOOLS) -r $(VISION_REQUIREMENTS)
	@touch $@

# Packages that $(VENV) has in the same version are linked, not installed again.
$(CONTAINER_INSTALLED): $(CONTAINER_REQUIREMENTS) | $(INSTALLED)
	@echo "Installing the packages of SageMaker's container into $(CONTAINER_VENV)."
	@$(RUN) -m venv $(CONTAINER_VENV)
	@$(RUN) -m scripts.share_packages $(CONTAINER_VENV) $<
	@$(CONTAINER_VENV)/bin/python $(PIP_INSTALL) -r $(CONTAINER_REQUIREMENTS)
	@touch $@

$(RAY_INSTALLED): $(RAY_REQUIREMENTS) pyproject.toml | $(CREATED)
	@echo "Installing d2serve with Ray, in the versions of SageMaker's container, into $(RAY_VENV); this takes a few minutes and 6 GB."
	@$(RUN) -m venv $(RAY_VENV)
	@$(RAY_VENV)/bin/python $(PIP_INSTALL) -r $(RAY_REQUIREMENTS) -e ".[asgi,ray,aws]"
	@touch $@

$(INSTALLED): pyproject.toml constraints.txt | $(CREATED)
	@echo "Installing d2serve into $(VENV); the first time this takes a few minutes and 5 GB."
	@$(RUN) -m pip install --disable-pip-version-check -c constraints.txt -e ".[torchserve,asgi,grpc,aws,bench,dev]"
	@touch $@

$(CREATED):
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null || { \
	  echo "d2serve needs Python 3.10 to 3.13, and \"$(PYTHON)\" is $$("$(PYTHON)" --version 2>&1 || echo missing)." >&2; \
	  echo "Name another one: make PYTHON=/path/to/python3.12" >&2; \
	  exit 1; \
	}
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@
