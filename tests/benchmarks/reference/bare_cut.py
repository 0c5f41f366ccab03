# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The yardstick: the same libvirt calls as a cut of ours, in one short script without Ansible. bare_cut.py VM..."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET

import libvirt

FILTER = "<filter name='vmward-sealed'><rule action='drop' direction='inout' priority='500'><mac/></rule></filter>"
SIDES = (
    (libvirt.VIR_DOMAIN_AFFECT_LIVE, 0),
    (libvirt.VIR_DOMAIN_AFFECT_CONFIG, libvirt.VIR_DOMAIN_XML_INACTIVE),
)
BOTH = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
NOTE_URI = "https://vmward.github.io/xmlns/isolation/1"


def main() -> None:
    """Note, filter, link down, live and persistent, for each VM; then read back."""
    conn = libvirt.open("qemu:///system")
    try:
        conn.nwfilterLookupByName("vmward-sealed")
    except libvirt.libvirtError:
        conn.nwfilterDefineXML(FILTER)
    domains = [conn.lookupByName(name) for name in sys.argv[1:]]
    for domain in domains:
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, "<isolation/>", "vmward", NOTE_URI, BOTH)
        for flag, description in SIDES:
            for interface in ET.fromstring(domain.XMLDesc(description)).findall("./devices/interface"):
                for old in interface.findall("filterref") + interface.findall("link"):
                    interface.remove(old)
                ET.SubElement(interface, "filterref", {"filter": "vmward-sealed"})
                ET.SubElement(interface, "link", {"state": "down"})
                domain.updateDeviceFlags(ET.tostring(interface, encoding="unicode"), flag)
    for domain in domains:
        for _flag, description in SIDES:
            for interface in ET.fromstring(domain.XMLDesc(description)).findall("./devices/interface"):
                link = interface.find("link")
                if link is None or link.get("state") != "down":
                    sys.exit(f"{domain.name()} is not cut")


if __name__ == "__main__":
    main()
