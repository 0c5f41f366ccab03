# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export SYSTEM

REQ := tests/requirements
# Virtual machines, their networks and their disks need root, whose programs your own PATH may lack; everything else runs as you.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -E env "PATH=$(PATH):/usr/sbin:/sbin")
PLAY := $(SUDO) .venv/bin/ansible-playbook
MODULE_UTILS := ansible_collections.vmward.remediation.plugins.module_utils
SUITES = $(wildcard tests/unit tests/pve tests/conformance tests/integration tests/scenarios tests/respond)

.PHONY: help system system-test .venv .venv-lint collections lint test test-all bench demo tour lab-up lab-down clean

help: ## Show this help
	@sed -nE 's/^([a-z.-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

system: ## Install the Debian packages of the lab and the tests (tests/requirements/system.txt)
	@$(REQ)/install-system $$(sed 's/#.*//' $(REQ)/system.txt)

.venv: system ## Make the Python environment to run and test in
	@$(REQ)/make-venv .venv run.txt

.venv-lint: ## Make the Python environment of the gates
	@$(REQ)/install-system git python3-venv shellcheck
	@$(REQ)/make-venv .venv-lint lint.txt

collections: build/collections/ansible_collections/vmward/remediation ## Give Ansible the checkout as a collection
build/collections/ansible_collections/vmward/remediation:
	@mkdir -p $(@D) && ln -sfn ../../../.. $@

lint: .venv-lint collections ## Run every static gate
	@tests/lint

system-test: system
	@tests/requirements/install-system $$(sed 's/#.*//' $(REQ)/system-test.txt)

test: .venv system-test collections ## Run all tests
	$(SUDO) tests/run "not slow" $(SUITES)

test-all: .venv system-test collections ## Run all tests, the slow ones and the fault tests too
	$(SUDO) tests/run "slow or not slow" $(SUITES) $(wildcard tests/faults)

bench: .venv collections ## Run the benchmarks; B=contain runs one of them
	@for bench in tests/benchmarks/$(B)*.py; do $(SUDO) .venv/bin/python "$$bench"; done

demo: .venv collections ## Build the lab, infect desk1 with inert samples, and respond to it
	$(PLAY) vmward.remediation.lab_up -e lab_fresh=true
	$(PLAY) vmward.remediation.lab_infect
	$(PLAY) vmward.remediation.respond -e vmward_vms=desk1

tour: .venv collections ## Watch the same response on simulated VMs: no root, no VM
	@PYTHONPATH=build/collections .venv/bin/python -m $(MODULE_UTILS)._fake.tour build/tour
	.venv/bin/ansible-playbook -i inventories/tour vmward.remediation.respond -e vmward_vms=desk1

lab-up: .venv collections ## Build and start the lab's virtual machines
	$(PLAY) vmward.remediation.lab_up

lab-down: .venv collections ## Remove the lab: every VM, network and file it made, and nothing else
	$(PLAY) vmward.remediation.lab_down

clean: ## Remove what make made in this checkout (run lab-down first)
	rm -rf .venv .venv-lint build .ansible .cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
