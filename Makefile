# Evergreen: `make demo` and `make test` set up what is missing and run.
#   make demo EPISODES=3 SEED=7 POLICY=expert
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

EPISODES ?= 5
SEED ?= 1
POLICY ?= auto
NUCLEUS ?= lite
BIN := .venv/bin
# Sources are linked, not copied: only a change of what a package declares or installs asks for another build.
BUILD_INPUTS := $(wildcard src/*/package.xml src/*/setup.py src/*/setup.cfg launch/*.xml launch/setup.* launch/*/*) colcon.meta

.PHONY: help demo demo-update setup-train setup-containers rehearse test test-python lint bench setup build clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: install/.built ## run the graph against the simulation: EPISODES=5 SEED=1 POLICY=auto|expert|NAME
	@exec $(BIN)/evergreen demo --episodes $(EPISODES) --seed $(SEED) --policy $(POLICY)

demo-update: install/.built ## an update through Greengrass's protocol, in simulation: NUCLEUS=lite|classic
	@exec $(BIN)/evergreen demo --update --seed $(SEED) --nucleus $(NUCLEUS)

test: .venv/.test install/.built lint test-python ## set up, then run every check and every test

test-python: .venv/.test install/.built setup-containers
	$(BIN)/python -m pytest

lint: .venv/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.test install/.built ## every benchmark, as JSON under out/bench
	@mkdir -p out/bench
	for file in benchmarks/*.py; do $(BIN)/python $$file --json out/bench/$$(basename $$file .py).json || exit 1; done

setup: .venv/.run ## only install what running needs
setup-train: .venv/.test ## also torch, LeRobot and the test tools: for training, datasets and the torch backend
build: install/.built ## only build the workspace

setup-containers: ## Podman, a registry and a base image, for the rehearsal of containers; needs root on Debian
	@tools/setup-containers

rehearse: .venv/.test install/.built setup-containers ## only the story through real images in a real registry
	$(BIN)/python -m pytest tests/test_containers.py -s

.venv/.run: pyproject.toml uv.lock tools/setup
	@tools/setup run
	@touch $@

.venv/.test: pyproject.toml uv.lock tools/setup
	@tools/setup test
	@touch $@ .venv/.run

install/.built: .venv/.run $(BUILD_INPUTS)
	@echo "building the workspace"
	@tools/build
	@touch $@

clean: ## remove everything that was made here
	rm -rf .venv .cache build install log out
