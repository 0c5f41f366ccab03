# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's error codes become sentences that say what to do."""

from __future__ import annotations

import threading
from typing import Any

import libvirt
import pytest

from ansible_collections.vmward.remediation.plugins.module_utils import _errors
from ansible_collections.vmward.remediation.plugins.module_utils._crew import apart
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt.connection import Connection
from ansible_collections.vmward.remediation.plugins.module_utils._model import VmRef

DESK = VmRef("kvm1", "id-1", "desk\n1")
LOG_IN = "member of group libvirt, correct the log-in of test:///default, or let its polkit rules"


def failed(code: int, message: str) -> libvirt.libvirtError:
    error = libvirt.libvirtError(message)
    error.err = (code, 0, message, 2, None, None, None, -1, -1)
    return error


@pytest.mark.parametrize(
    ("codes", "vm", "message", "kind", "advice"),
    [
        ("AUTH_FAILED AUTH_CANCELLED AUTH_UNAVAILABLE", None, "no", "AuthFailed", LOG_IN),
        ("ACCESS_DENIED OPERATION_DENIED", DESK, "access denied", "AuthFailed", LOG_IN),
        ("SYSTEM_ERROR", None, "Failed to connect socket to '/x': Permission denied", "AuthFailed", LOG_IN),
        ("SYSTEM_ERROR", DESK, "Cannot open disk: Permission denied", "TaskFailed", "See the log of libvirtd on kvm1"),
        ("NO_DOMAIN NO_DOMAIN_SNAPSHOT NO_STORAGE_VOL", DESK, "no", "NotFound", "list what there is with vm_info"),
        (
            "NO_SUPPORT OPERATION_UNSUPPORTED CONFIG_UNSUPPORTED ARGUMENT_UNSUPPORTED",
            DESK,
            "no",
            "Unsupported",
            "do it by hand, or update it",
        ),
        ("OPERATION_TIMEOUT", DESK, "held by job", "TimedOut", "see virsh domjobinfo"),
        ("AGENT_UNRESPONSIVE", DESK, "no", "TimedOut", "Do without the guest's agent"),
        ("INTERNAL_ERROR RPC", None, "no", "TaskFailed", "Check that libvirtd runs there and that the URI"),
        ("INTERNAL_ERROR OPERATION_INVALID", DESK, "no", "TaskFailed", "See the log of libvirtd on kvm1"),
    ],
)
def test_each_group_of_codes_has_its_error_and_says_what_to_do(
    codes: str, vm: VmRef | None, message: str, kind: str, advice: str
) -> None:
    link = Connection("kvm1", "test:///default")
    for code in codes.split():
        told = link.sentence(failed(getattr(libvirt, f"VIR_ERR_{code}"), message), "isolate", vm)
        assert told.__class__ is getattr(_errors, kind), code
        whom = " desk\\x0a1 (id-1)" if vm else ""
        assert str(told).startswith(f"Cannot isolate{whom} on kvm1: {message}. ")
        assert advice in str(told)
    link.close()


def test_each_call_under_way_has_a_connection_to_itself_and_all_are_closed() -> None:
    link = Connection("kvm1", "test:///default")
    link.call("hold one, and", None, lambda _held: link.call("take another", None, lambda conn: conn.getHostname()))
    assert link._idle.qsize() == 2
    link.close()
    assert link._idle.qsize() == 0


def test_who_cannot_open_one_more_connection_waits_for_that_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host may let only so many log in within a minute, and a cut must not end at that."""
    link = Connection("kvm1", "test:///default")
    refused = threading.Event()

    def refuse() -> Any:
        refused.set()
        raise _errors.TimedOut("no answer")

    monkeypatch.setattr(link, "_open", refuse)
    held = threading.Event()

    def hold(_conn: Any) -> None:
        held.set()
        refused.wait(20)

    other = apart(lambda: link.call("hold", None, hold))
    held.wait(20)
    assert link.call("list the VMs", None, lambda conn: conn.listAllDomains(0)[0].name()) == "test"
    other.result()
    link.close()
    with pytest.raises(_errors.TimedOut, match="no answer"):
        link.call("list the VMs", None, lambda conn: conn.listAllDomains(0))
