# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is left out of an answer before it is parsed, and what never is."""

from __future__ import annotations

import gzip
import http.client
import io
import re
import socket
from typing import cast

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._vsphere.lean import DEVICES, Response, leaned
from ansible_collections.vmward.remediation.plugins.module_utils._vsphere.note import KEY


def device(kind: str, label: str = "one") -> str:
    label = f'<deviceInfo xsi:type="Description"><label>{label}</label></deviceInfo>'
    return f'<VirtualDevice xsi:type="{kind}"><key>1</key>{label}</VirtualDevice>'


def option(key: str, value: str = "x") -> str:
    value = f'<value xsi:type="xsd:string">{value}</value>'
    return f'<OptionValue xsi:type="OptionValue"><key>{key}</key>{value}</OptionValue>'


def lean(text: str) -> str:
    return leaned(text.encode()).decode()


@pytest.mark.parametrize("kind", ["VirtualDisk", "VirtualVmxnet3", "VirtualPCIPassthrough", "VirtualUSB", "VirtualNew"])
def test_devices_that_matter_stay_between_those_that_do_not(kind: str) -> None:
    assert lean(device("VirtualKeyboard") + device(kind) + device("VirtualCdrom")) == device(kind)


def test_no_kind_that_is_left_out_may_be_a_card_a_disk_or_a_controller_of_disks() -> None:
    told = [
        kind
        for kind in DEVICES
        if re.search("Card$|Disk|SCSI|AHCI|NVME|IDE|Ethernet|Passthrough|USB|Vmxnet|E1000", kind)
    ]
    assert told == ["VirtualHdAudioCard", "VirtualMachineVideoCard"]


def test_the_note_stays_and_other_settings_go() -> None:
    assert lean(option("guestinfo.x") + option(KEY, "mine") + option(KEY + ".old") + option("svga.vram")) == option(
        KEY, "mine"
    )


def test_a_text_of_the_guest_ends_no_element() -> None:
    hostile = option("guestinfo.x", f"&lt;/OptionValue&gt;{KEY}") + device("VirtualCdrom", "&lt;/VirtualDevice&gt;")
    assert lean(f"<a>{hostile}</a>") == "<a></a>"


def test_what_has_no_end_or_no_beginning_is_left_as_it_is() -> None:
    for part in (device("VirtualCdrom")[:-3], "</VirtualDevice>", option("svga.vram")[:-3], "</OptionValue>"):
        assert lean(part) == part
    assert lean(device("VirtualCdrom")[:-3] + device("VirtualFloppy")) == device("VirtualCdrom")[:-3]


def test_an_answer_in_another_form_is_left_as_it_is() -> None:
    quoted = f"<![CDATA[</VirtualDevice>]]>{device('VirtualCdrom')}"
    other = device("VirtualCdrom").replace("VirtualDevice", "v:VirtualDevice")
    assert (lean(quoted), lean(other)) == (quoted, other)


class Line:
    """A connection on which one answer lies."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self.answer)


def answered(body: bytes, packing: str) -> Response:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nContent-Encoding: {packing}\r\n\r\n"
    response = Response(cast(socket.socket, Line(head.encode() + body)))
    response.begin()
    return response


def enveloped(*devices: str) -> bytes:
    return f"<soapenv:Envelope>{''.join(map(device, devices))}</soapenv:Envelope>".encode()


TEXT = enveloped("VirtualCdrom", "VirtualDisk")


def test_an_answer_is_read_in_parts_packed_or_not() -> None:
    for body, packing in ((TEXT, "identity"), (gzip.compress(TEXT), "gzip")):
        response = answered(body, packing)
        assert response.getheader("content-encoding", "identity") == "identity"
        assert response.read(10) + response.read() + response.read() == enveloped("VirtualDisk")
        assert response.isclosed()


def test_a_packing_that_is_not_known_is_the_library_s_affair() -> None:
    response = answered(TEXT, "deflate")
    assert response.getheader("Content-Encoding", "identity") == "deflate"
    assert response.read() == TEXT


def test_an_answer_that_is_packed_wrongly_or_cut_short_is_an_error() -> None:
    with pytest.raises(http.client.HTTPException, match="packed wrongly"):
        answered(b"no gzip", "gzip").read()
    with pytest.raises(http.client.HTTPException, match="packed wrongly"):
        answered(gzip.compress(TEXT)[:-9], "gzip").read()


@pytest.mark.parametrize("page", [b"<html>The proxy has a bad day.</html>", b"", b"{}"])
@pytest.mark.parametrize("packing", ["identity", "gzip"])
def test_a_page_is_no_answer(page: bytes, packing: str) -> None:
    """The library would take it for a call that was made and that answers nothing."""
    with pytest.raises(http.client.HTTPException, match="not vSphere's"):
        answered(gzip.compress(page) if packing == "gzip" else page, packing).read()
