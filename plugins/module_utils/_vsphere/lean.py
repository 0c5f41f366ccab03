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
UNREAD = re.compile(
    rb'<VirtualDevice [\w-]+:type="(?:%s)">.*?</VirtualDevice>'
    rb'|<OptionValue(?: [\w-]+:type="OptionValue")?><key>(?!%s<).*?</OptionValue>'
    % ("|".join(DEVICES).encode(), re.escape(note.KEY).encode()),
    re.DOTALL,
)


def leaned(answer: bytes) -> bytes:
    """An XML answer without these elements. A text of the guest's cannot end one: vSphere escapes its C(<)."""
    return answer if b"<![CDATA[" in answer else UNREAD.sub(b"", answer)


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
            return leaned(zlib.decompress(body, zlib.MAX_WBITS + 16) if packing == "gzip" else body)
        except zlib.error as exc:
            raise http.client.HTTPException("its answer is packed wrongly (%s)" % exc) from exc

    def getheader(self, name: str, default: Any = None) -> Any:
        """The library unpacks what is told to be packed: here it no longer is."""
        told = super().getheader(name, default)
        return default if name.lower() == "content-encoding" and str(told).lower() == "gzip" else told


class HttpsConnection(http.client.HTTPSConnection):
    """What the library is to ask vSphere through."""

    response_class = Response
