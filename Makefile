# Every command of d2serve. The first run of any of them makes .venv and installs all.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
CREATED := $(VENV)/.created
INSTALLED := $(VENV)/.installed
SDK_VENV := .venv-sagemaker
SDK_INSTALLED := $(SDK_VENV)/.installed
SDK_REQUIREMENTS := tests/serving/sdk/requirements.txt
CONTAINER_VENV := .venv-container
CONTAINER_INSTALLED := $(CONTAINER_VENV)/.installed
CONTAINER_REQUIREMENTS := constraints-sagemaker.txt
SHAPES := models/shapes
SHAPES_MAR := model-store/shapes.mar
HANDLER_SOURCES := $(shell find handler -name '*.py' -o -name '*.yaml' 2>/dev/null)

# Variables given on the command line reach the recipes through the environment ("$$NAME"),
# so that spaces and quotes in them survive. What runs a server is exec'd: make passes a SIGTERM on
# to its child alone, and a shell between the two would die of it and leave the server behind.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo serve test environments archive package sagemaker-local deploy undeploy \
  transform clarify predict loadtest soak bench-peers bench bench-gpu sbom lint format fuzz test-pythons clean

help: ## List the commands
	@awk -F ' ?## ' '/^[a-z-]+:.*## / { sub(/:.*/, "", $$1); printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(SHAPES_MAR) ## Serve the bundled model, send its sample pictures, write overlays to out/
	@exec $(RUN) -m d2serve.cli.demo

serve: $(if $(MODEL),$(INSTALLED),$(SHAPES_MAR)) ## Serve in the foreground: [MODEL=model-store/NAME.mar] [PORT=8080] [ADDRESS=0.0.0.0] [CERTIFICATE= KEY=]
	@exec $(RUN) -m d2serve.cli.serve $${MODEL:+--model "$$MODEL"} $${PORT:+--port "$$PORT"} \
	  $${ADDRESS:+--address "$$ADDRESS"} $${METRICS_ADDRESS:+--metrics-address "$$METRICS_ADDRESS"} \
	  $${CERTIFICATE:+--certificate "$$CERTIFICATE"} $${KEY:+--key "$$KEY"}

# Threads that spin while they wait take the cores of other processes, of which the tests start several.
# The tests of a file run in one process, so that they share the servers that they ask for.
test: ## Run all tests, those against a real TorchServe too: [PROCESSES=3]
	@$(MAKE) --no-print-directory --jobs=3 environments
	@OMP_WAIT_POLICY=$${OMP_WAIT_POLICY:-PASSIVE} $(RUN) -m pytest --numprocesses "$${PROCESSES:-3}" --dist loadfile --no-loadscope-reorder

environments: $(INSTALLED) $(SDK_INSTALLED) $(CONTAINER_INSTALLED)

archive: $(INSTALLED) ## Detectron2 config and checkpoint to model-store/NAME.mar: CONFIG= WEIGHTS= NAME= [CLASSES=] [WEIGHTS_KEY=model] [RUNTIME=auto]
	@if [ -z "$$CONFIG" ] || [ -z "$$WEIGHTS" ] || [ -z "$$NAME" ]; then \
	  echo "usage: make archive CONFIG=config.yaml WEIGHTS=model_final.pth NAME=name [CLASSES=classes.json] [WEIGHTS_KEY=model] [RUNTIME=auto|native|detectron2]" >&2; \
	  exit 2; \
	fi
	@$(RUN) -m d2serve.building.archive --config "$$CONFIG" --weights "$$WEIGHTS" --name "$$NAME" $${CLASSES:+--classes "$$CLASSES"} \
	  $${WEIGHTS_KEY:+--weights-key "$$WEIGHTS_KEY"} $${RUNTIME:+--runtime "$$RUNTIME"}

package: $(INSTALLED) ## model-store/NAME.mar to NAME.tar.gz, which SageMaker's PyTorch container serves: NAME= [MULTI_MODEL=1]
	@if [ -z "$$NAME" ]; then echo "usage: make package NAME=name [MULTI_MODEL=1]" >&2; exit 2; fi
	@$(RUN) -m d2serve.building.package --name "$$NAME" $${MULTI_MODEL:+--multi-model}

sagemaker-local: $(INSTALLED) $(CONTAINER_INSTALLED) ## Serve a package by AWS's own toolkit, without Docker: NAME= [PORT=8080] [MULTI_MODEL=1]
	@if [ -z "$$NAME" ]; then echo "usage: make sagemaker-local NAME=name [PORT=8080] [MULTI_MODEL=1]" >&2; exit 2; fi
	@exec $(RUN) -m d2serve.cli.sagemaker_local --name "$$NAME" $${PORT:+--port "$$PORT"} $${MULTI_MODEL:+--multi-model}

# What deploy and transform share: where, as whom, and what the container may do.
AWS_SITE = $${REGION:+--region "$$REGION"} $${ROLE:+--role "$$ROLE"} $${BUCKET:+--bucket "$$BUCKET"} \
  $${PREFIX:+--prefix "$$PREFIX"} $${KMS_KEY:+--kms-key "$$KMS_KEY"} $${INSTANCE:+--instance "$$INSTANCE"} \
  $${INSTANCES:+--instances "$$INSTANCES"} $${SUBNETS:+--subnets "$$SUBNETS"} \
  $${SECURITY_GROUPS:+--security-groups "$$SECURITY_GROUPS"} \
  $${NETWORK_ISOLATION:+--network-isolation} \
  $$(for pair in $$CONTAINER_ENV; do printf -- '--env %s ' "$$pair"; done) $${DRY_RUN:+--dry-run}

deploy: $(INSTALLED) ## Package to a SageMaker endpoint: NAME= ENDPOINT= [MODE=realtime|serverless|async|mme] [INSTANCE=] [ROLE=] [REGION=] [DRY_RUN=1]
	@if [ -z "$$NAME" ] || [ -z "$$ENDPOINT" ]; then \
	  echo "usage: make deploy NAME=name ENDPOINT=name [MODE=realtime|serverless|async|mme] [INSTANCE=] [ROLE=] [REGION=] [DRY_RUN=1]" >&2; \
	  exit 2; \
	fi
	@exec $(RUN) -m d2serve.aws.deploy --name "$$NAME" --endpoint "$$ENDPOINT" $${MODE:+--mode "$$MODE"} $(AWS_SITE) \
	  $${MAX_INSTANCES:+--max-instances "$$MAX_INSTANCES"} $${MIN_INSTANCES:+--min-instances "$$MIN_INSTANCES"} \
	  $${TARGET_INVOCATIONS:+--target-invocations "$$TARGET_INVOCATIONS"} \
	  $${MEMORY_MB:+--memory-mb "$$MEMORY_MB"} $${MAX_CONCURRENCY:+--max-concurrency "$$MAX_CONCURRENCY"} \
	  $${DATA_CAPTURE:+--data-capture "$$DATA_CAPTURE"} $$(for alarm in $$ALARMS; do printf -- '--alarm %s ' "$$alarm"; done) $${OUTPUT:+--output "$$OUTPUT"} \
	  $${SUCCESS_TOPIC:+--success-topic "$$SUCCESS_TOPIC"} $${ERROR_TOPIC:+--error-topic "$$ERROR_TOPIC"}

undeploy: $(INSTALLED) ## Remove an endpoint and all that deploy made for it: ENDPOINT= [REGION=] [DRY_RUN=1]
	@if [ -z "$$ENDPOINT" ]; then echo "usage: make undeploy ENDPOINT=name [REGION=] [DRY_RUN=1]" >&2; exit 2; fi
	@exec $(RUN) -m d2serve.aws.undeploy --endpoint "$$ENDPOINT" $${REGION:+--region "$$REGION"} $${DRY_RUN:+--dry-run}

transform: $(INSTALLED) ## A SageMaker job over pictures in S3: NAME= INPUT=s3:// OUTPUT=s3:// [INSTANCE=] [ROLE=] [REGION=] [DRY_RUN=1]
	@if [ -z "$$NAME" ] || [ -z "$$INPUT" ] || [ -z "$$OUTPUT" ]; then \
	  echo "usage: make transform NAME=name INPUT=s3://bucket/pictures/ OUTPUT=s3://bucket/answers/ [INSTANCE=] [ROLE=] [REGION=] [DRY_RUN=1]" >&2; \
	  exit 2; \
	fi
	@exec $(RUN) -m d2serve.aws.transform --name "$$NAME" --input "$$INPUT" --output "$$OUTPUT" $(AWS_SITE) \
	  $${REQUESTS_AT_ONCE:+--requests-at-once "$$REQUESTS_AT_ONCE"} $${MAX_PAYLOAD_MB:+--max-payload-mb "$$MAX_PAYLOAD_MB"} \
	  $${CONTENT_TYPE:+--content-type "$$CONTENT_TYPE"} $${ACCEPT:+--accept "$$ACCEPT"}

clarify: $(INSTALLED) ## Write SageMaker Clarify's analysis_config.json: ENDPOINT= [NAME=] [DATASET=s3://] [FILE=out/analysis_config.json]
	@if [ -z "$$ENDPOINT" ]; then echo "usage: make clarify ENDPOINT=name [NAME=] [DATASET=s3://bucket/pictures/] [FILE=]" >&2; exit 2; fi
	@exec $(RUN) -m d2serve.aws.clarify --endpoint "$$ENDPOINT" $${NAME:+--name "$$NAME"} $${DATASET:+--dataset "$$DATASET"} $${FILE:+--output "$$FILE"}

# A TOKEN that some other program left in the environment is not for our server.
predict: $(INSTALLED) ## Send one picture or a folder to a server or an endpoint: IMAGE= [URL=] [TOKEN=] [CA=] [ENDPOINT=] [REGION=] [TARGET_MODEL=]
	@if [ -z "$$IMAGE" ]; then \
	  echo "usage: make predict IMAGE=picture-or-folder [URL=http://127.0.0.1:8080/invocations] [TOKEN=] [CA=] [ENDPOINT=] [REGION=] [TARGET_MODEL=]" >&2; \
	  exit 2; \
	fi
	@D2SERVE_TOKEN="$(if $(filter command,$(origin TOKEN)),$$TOKEN,$$D2SERVE_TOKEN)" \
	  $(RUN) -m d2serve.cli.predict "$$IMAGE" $${URL:+--url "$$URL"} $${CA:+--ca "$$CA"} $${ENDPOINT:+--endpoint "$$ENDPOINT"} \
	  $${REGION:+--region "$$REGION"} $${TARGET_MODEL:+--target-model "$$TARGET_MODEL"}

loadtest: $(if $(or $(MODEL),$(URL)),$(INSTALLED),$(SHAPES_MAR)) ## Load over settings and clients to out/loadtest/report.html: [MODEL=] [URL=] [PICTURES=] [P99_MS=] [QUICK=1]
	@exec $(RUN) -m bench.load $${MODEL:+--model "$$MODEL"} $${URL:+--url "$$URL"} $${PICTURES:+--pictures "$$PICTURES"} \
	  $${P99_MS:+--p99-ms "$$P99_MS"} $${QUICK:+--quick}

soak: $(if $(MODEL),$(INSTALLED),$(SHAPES_MAR)) ## Mixed traffic and faults to out/soak/report.html: [MINUTES=30] [CLIENTS=32] [HOSTILE=0.1] [KILL_EVERY=300] [MODEL=] [PICTURES=]
	@exec $(RUN) -m bench.soak $${MINUTES:+--minutes "$$MINUTES"} $${CLIENTS:+--clients "$$CLIENTS"} $${HOSTILE:+--hostile "$$HOSTILE"} \
	  $${KILL_EVERY:+--kill-every "$$KILL_EVERY"} $${MODEL:+--model "$$MODEL"} $${PICTURES:+--pictures "$$PICTURES"}

sbom: $(INSTALLED) ## Write out/sbom.cdx.json, a CycloneDX bill of what serving runs on and, with NAME=, an archive's files
	@$(RUN) -m scripts.sbom $${NAME:+--name "$$NAME"}

lint: $(INSTALLED) ## Check style, formatting and types
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check
	@$(RUN) -m mypy

format: $(INSTALLED) ## Rewrite the code as `make lint` wants it
	@$(RUN) -m ruff check --fix
	@$(RUN) -m ruff format

# BENCH's words come from the command line as they are: `make bench BENCH="--only masks --rounds 31"`.
bench: $(INSTALLED) ## Time every stage beside its peers, and whole requests: [BENCH="--quick --only decode forward ..."]; to out/bench/
	@exec $(RUN) -m bench $$BENCH

bench-peers: $(INSTALLED) $(CONTAINER_INSTALLED) ## Requests/s beside other servers of the same model, over HTTP: [BENCH="--models shapes r50 --seconds 120 ..."]
	@exec $(RUN) -m bench.peers $$BENCH

bench-gpu: $(INSTALLED) ## On a machine with a CUDA GPU: forward, whole requests and HTTP in one table: [BENCH=]
	@exec $(RUN) -m bench.gpu $$BENCH

fuzz: $(INSTALLED) ## Mutated requests through the pipeline, a tenth as many to a real server: [EXAMPLES=20000]
	@D2SERVE_FUZZ_EXAMPLES="$${EXAMPLES:-20000}" $(RUN) -m pytest -s --hypothesis-show-statistics tests/fuzz

test-pythons: $(INSTALLED) ## Run the unit tests under each of Python 3.10, 3.11 and 3.12 that is present
	@$(RUN) -m scripts.pythons

clean: ## Remove what the commands made, the environments included
	rm -rf .venv .venv-* out logs model-store/*.mar model-store/*.tar.gz .pytest_cache .mypy_cache .ruff_cache
	find handler scripts bench tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(SHAPES_MAR): $(SHAPES)/config.yaml $(SHAPES)/model_final.pth $(SHAPES)/classes.json $(HANDLER_SOURCES) pyproject.toml | $(INSTALLED)
	@$(RUN) -m d2serve.building.archive --config $(SHAPES)/config.yaml --weights $(SHAPES)/model_final.pth \
	  --classes $(SHAPES)/classes.json --name shapes --model-store $(@D)

$(SDK_INSTALLED): $(SDK_REQUIREMENTS) | $(CREATED)
	@echo "Installing the sagemaker SDK's serializers into $(SDK_VENV), for the tests."
	@$(RUN) -m venv $(SDK_VENV)
	@$(SDK_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $(SDK_REQUIREMENTS)
	@touch $@

$(CONTAINER_INSTALLED): $(CONTAINER_REQUIREMENTS) | $(CREATED)
	@echo "Installing what SageMaker's container has into $(CONTAINER_VENV); this takes a few minutes and 5 GB."
	@$(RUN) -m venv $(CONTAINER_VENV)
	@$(CONTAINER_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $(CONTAINER_REQUIREMENTS)
	@touch $@

$(INSTALLED): pyproject.toml constraints.txt | $(CREATED)
	@echo "Installing the requirements into $(VENV); the first time this takes a few minutes and 5 GB."
	@$(RUN) -m pip install --disable-pip-version-check -c constraints.txt -e ".[torchserve,aws,bench,dev]"
	@touch $@

$(CREATED):
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "d2serve needs Python 3.10 or newer, and \"$(PYTHON)\" is $$("$(PYTHON)" --version 2>&1 || echo missing)." >&2; \
	  echo "Name another one: make PYTHON=/path/to/python3.12" >&2; \
	  exit 1; \
	}
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@
