# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's error codes become sentences that say what to do."""

from __future__ import annotations

import libvirt
import pytest

from ansible_collections.vmward.remediation.plugins.module_utils import _errors
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


class Shared(list[object]):
    """Idle connections of which the last is taken by another thread just after it was seen."""

    def __len__(self) -> int:
        seen = super().__len__()
        self.clear()
        return seen


def test_a_connection_that_another_thread_takes_first_is_no_failure() -> None:
    link = Connection("kvm1", "test:///default")
    link._idle = Shared(link._idle)
    assert link.call("list the VMs", None, lambda conn: conn.listAllDomains(0)[0].name()) == "test"
    link._idle = Shared(link._idle)
    link.close()
