# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may carry frames without being a NIC of the VM: unknown counts as yes."""

from __future__ import annotations

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._passthrough import has_own_nic, pci_kind


@pytest.mark.parametrize("code", ["0x010802", "0x030000", "0x040300", "0x120000", "030000"])
def test_storage_display_multimedia_and_accelerators_carry_no_frames(code: str) -> None:
    assert pci_kind(code) == ""


@pytest.mark.parametrize(
    ("code", "part"),
    [
        ("0x020000", "network card"),
        ("0x0C0330", "USB controller, on which a network card may sit"),
        ("0x0d1100", "wireless controller"),
        ("0x0c0600", "may be a network card"),  # InfiniBand
        ("0x060400", "may be a network card"),
        ("", "may be a network card"),
    ],
)
def test_every_other_class_is_told(code: str, part: str) -> None:
    assert part in pci_kind(code)


@pytest.mark.parametrize(
    "args",
    [
        "-netdev user,id=n1",
        "--netdev user,id=n1",
        "-nic tap",
        "--net nic",
        "-device virtio-net-pci,netdev=n1",
        "--device e1000e,id=x",
        "-device id=x,driver=rtl8139",
        '-device {"driver":"vmxnet3","id":"x"}',
        '-device {"driver":["e1000"',
        "-device vfio-pci,host=01:00.0",
        "-device usb-host,hostbus=1",
        "-readconfig /etc/more.cfg",
    ],
)
def test_a_nic_in_qemus_arguments_is_seen(args: str) -> None:
    assert has_own_nic(["-cpu", "host", *args.split(" ", 1)])


@pytest.mark.parametrize(
    "args",
    [
        "-device usb-mouse",
        "-device virtserialport,chardev=net,name=org.qemu.netdev",
        "-append net.ifnames=0",
        "-name nic",
        "net user",
        '-device {"driver":"virtio-rng-pci"}',
    ],
)
def test_other_arguments_bring_none(args: str) -> None:
    assert not has_own_nic(args.split(" ", 1))
