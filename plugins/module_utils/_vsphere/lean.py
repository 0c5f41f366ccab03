# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leave out of vSphere's answers what nobody here reads, before the library makes objects of it.

That is most of the time of a large read: the devices of a VM and its extra configuration can only be asked for whole,
and only its disks, their controllers and what may be a network card matter here, and one key. An answer that is
written in another way than vSphere's is left as it is.

Sources: U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.vm.device.VirtualDevice.html),
U(https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.option.OptionValue.html).
"""

from __future__ import annotations

import http.client
import io
import re
import zlib
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from . import note

DEVICES = (
    "VirtualCdrom",
    "VirtualEnsoniq1371",
    "VirtualFloppy",
    "VirtualHdAudioCard",
    "VirtualKeyboard",
    "VirtualMachineVMCIDevice",
    "VirtualMachineVideoCard",
    "VirtualPCIController",
    "VirtualPS2Controller",
    "VirtualPointingDevice",
    "VirtualSIOController",
    "VirtualSoundBlaster16",
    "VirtualTPM",
)
ENVELOPE = re.compile(rb"<(?:[\w-]+:)?Envelope[\s>]")  # of every answer that is SOAP
STRANGE = "its answer is not vSphere's. Look for a proxy before it"
NAME = rb"[\w-]+:type="
UNREAD = {
    b"VirtualDevice": re.compile(rb'<VirtualDevice %s"(?:%s)">' % (NAME, "|".join(DEVICES).encode())),
    b"OptionValue": re.compile(
        rb'<OptionValue(?: %s"OptionValue")?><key>(?!%s<)' % (NAME, re.escape(note.KEY).encode())
    ),
}


def leaned(answer: bytes) -> bytes:
    """An XML answer without these elements. A text of the guest's cannot end one: vSphere escapes its C(<)."""
    if b"<![CDATA[" in answer:
        return answer
    for tag, unread in UNREAD.items():
        answer = b"".join(kept(answer, tag, unread))
    return answer


def kept(answer: bytes, tag: bytes, unread: re.Pattern[bytes]) -> Iterator[bytes]:
    """Neither kind of element holds another of its kind, so that each ends at the first end of its name."""
    *parts, rest = answer.split(b"</%s>" % tag)
    for part in parts:
        start = part.rfind(b"<" + tag)
        if start >= 0 and unread.match(part, start):
            yield part[:start]
        else:
            yield part
            yield b"</%s>" % tag
    yield rest


class Response(http.client.HTTPResponse):
    """An answer that is taken in whole, unpacked and made lean."""

    _left: io.BytesIO | None = None

    def read(self, amt: int | None = None) -> bytes:
        if self._left is None:
            self._left = io.BytesIO(self._whole())
        return self._left.read(amt)

    def _whole(self) -> bytes:
        packing, body = super().getheader("Content-Encoding", "identity").lower(), super().read()
        if packing not in ("identity", "gzip"):
            return body
        try:
            answer = zlib.decompress(body, zlib.MAX_WBITS + 16) if packing == "gzip" else body
        except zlib.error as exc:
            raise http.client.HTTPException("its answer is packed wrongly (%s)" % exc) from exc
        is_soap = ENVELOPE.search(answer) is not None
        if self.status == HTTPStatus.OK and not is_soap:  # the library takes it for a call that was made
            raise http.client.HTTPException(STRANGE)
        return leaned(answer)

    def getheader(self, name: str, default: Any = None) -> Any:
        """The library unpacks what is told to be packed: here it no longer is."""
        told = super().getheader(name, default)
        return default if name.lower() == "content-encoding" and str(told).lower() == "gzip" else told


class HttpsConnection(http.client.HTTPSConnection):
    """What the library is to ask vSphere through."""

    response_class = Response
