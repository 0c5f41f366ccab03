# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of what each hypervisor can do is what the backends say."""

from __future__ import annotations

from ansible_collections.vmward.remediation.plugins.module_utils._argspec import BACKENDS as KINDS
from ansible_collections.vmward.remediation.plugins.module_utils._hypervisor import Capability
from ansible_collections.vmward.remediation.tests import support_table


def test_the_committed_page_is_what_the_generator_gives() -> None:
    again = "Write it anew: .venv/bin/python tests/support_table.py"
    assert support_table.PAGE.read_text() == support_table.page(), again


def test_every_kind_of_hypervisor_is_in_it() -> None:
    modules = {
        backend.kind.__module__.rpartition("module_utils._")[2].split(".")[0] for backend in support_table.BACKENDS
    }
    assert modules == set(KINDS)


def test_what_differs_between_the_best_and_the_least_has_its_condition() -> None:
    for backend in support_table.BACKENDS:
        assert set(backend.conditions) == backend.can(backend.best) - backend.can(backend.least)


def test_a_cell_follows_the_backend() -> None:
    proxmox = next(backend for backend in support_table.BACKENDS if backend.title == "Proxmox VE")
    assert proxmox.cell(Capability.DISK_RESET) == "no"
    assert proxmox.cell(Capability.SEAL) == "yes"
    assert proxmox.cell(Capability.MEMORY_DUMP) == "yes (simulated)"


def test_what_becomes_of_a_batch_is_told_of_every_backend() -> None:
    titles = {backend.title for backend in support_table.BACKENDS}
    assert [set(told) for told in support_table.FAULTS.values()] == [titles] * 3
    page = support_table.PAGE.read_text()
    assert all(text in page for told in support_table.FAULTS.values() for text in told.values())
