# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export SYSTEM

REQ := tests/requirements
# The system's own Python where it is new enough: version managers put shims first on PATH that may lead nowhere.
PYTHON := $(shell /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo /usr/bin/python3 || command -v python3)
# Virtual machines, their networks and their disks need root; everything else runs as you.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -E env "PATH=$(PATH)")
# A virtual environment is made again only when its requirements or the interpreter change.
stamp = $(shell { cat $(1) $(REQ)/constraints.txt; $(PYTHON) --version; } | sha256sum | cut -c1-16)
RUN_STAMP := .venv/stamp-$(call stamp,$(REQ)/run.txt)
LINT_STAMP := .venv-lint/stamp-$(call stamp,$(REQ)/lint.txt)
PLAY := $(SUDO) .venv/bin/ansible-playbook
SUITES = $(wildcard tests/unit tests/conformance tests/integration tests/scenarios tests/respond)

.PHONY: help system .venv .venv-lint collections lint test test-all bench demo tour lab-up lab-down clean

help: ## Show this help
	@sed -nE 's/^([a-z.-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

system: ## Install the Debian packages of the lab and the tests (tests/requirements/system.txt)
	@tests/requirements/install-system $$(sed 's/#.*//' $(REQ)/system.txt)

.venv: $(RUN_STAMP) ## Make the Python environment to run and test in
$(RUN_STAMP): | system
	$(call make_venv,.venv,run.txt)

.venv-lint: $(LINT_STAMP) ## Make the Python environment of the gates
$(LINT_STAMP):
	@tests/requirements/install-system git python3-venv shellcheck
	$(call make_venv,.venv-lint,lint.txt)

define make_venv
	@echo "Making $(1) from $(REQ)/$(2)"
	@$(PYTHON) -m venv $(1)
	@$(1)/bin/pip install -q -c $(REQ)/constraints.txt pip setuptools wheel
	@$(1)/bin/pip install -q -c $(REQ)/constraints.txt -r $(REQ)/$(2)
	@rm -f $(1)/stamp-* && touch $@
endef

collections: build/collections/ansible_collections/vmward/remediation ## Give Ansible the checkout as a collection
build/collections/ansible_collections/vmward/remediation:
	@mkdir -p $(@D) && ln -sfn ../../../.. $@

lint: .venv-lint collections ## Run every static gate
	@tests/lint

test: .venv collections ## Run all tests
	$(SUDO) .venv/bin/pytest $(SUITES)

test-all: .venv collections ## Run all tests, the slow ones and the fault tests too
	$(SUDO) .venv/bin/pytest -m "" $(SUITES) $(wildcard tests/faults)

bench: .venv collections ## Run the benchmarks; B=contain runs one of them
	@for bench in tests/benchmarks/$(B)*.py; do $(SUDO) .venv/bin/python "$$bench"; done

demo: lab-up ## Infect desk1 in the lab and respond to it
	$(PLAY) vmward.remediation.lab_infect
	$(PLAY) vmward.remediation.respond -e vmward_vms=desk1

tour: .venv collections ## Watch the same response on simulated VMs: seconds, no root
	.venv/bin/ansible-playbook -i inventories/tour vmward.remediation.respond -e vmward_vms=desk1

lab-up: .venv collections ## Build and start the lab's virtual machines
	$(PLAY) vmward.remediation.lab_up

lab-down: .venv collections ## Remove the lab: every VM, network and file it made, and nothing else
	$(PLAY) vmward.remediation.lab_down

clean: ## Remove what make made in this checkout (run lab-down first)
	rm -rf .venv .venv-lint build .ansible .cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
