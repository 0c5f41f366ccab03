# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our network filters against golden files, and what counts as ours."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._errors import Refused
from ansible_collections.vmward.remediation.plugins.module_utils._libvirt import filters
from ansible_collections.vmward.remediation.plugins.module_utils._model import Collector

GOLDEN = Path(__file__).with_name("golden")
COLLECTORS = [
    Collector("192.0.2.1", 22),
    Collector("2001:db8::1", 514, "udp", "vm"),
    Collector("198.51.100.7", 443, "tcp", "vm", "192.0.2.254"),
]


def golden(name: str) -> str:
    return (GOLDEN / name).read_text()


@pytest.mark.parametrize(
    ("made", "file"),
    [(filters.sealed(), "filter-sealed.xml"), (filters.forensic(COLLECTORS), "filter-forensic.xml")],
    ids=["sealed", "forensic"],
)
def test_the_rules_are_the_golden_ones(made: tuple[str, str], file: str) -> None:
    assert ET.canonicalize(made[1], strip_text=True) == ET.canonicalize(golden(file), strip_text=True)


def test_the_order_of_collectors_makes_no_other_filter_but_another_port_does() -> None:
    name = filters.forensic(COLLECTORS)[0]
    assert filters.forensic(COLLECTORS[::-1])[0] == name
    assert filters.forensic([Collector("192.0.2.1", 23), *COLLECTORS[1:]])[0] != name


def test_a_filter_with_other_rules_under_our_name_is_not_ours() -> None:
    for made in (filters.sealed(), filters.forensic(COLLECTORS)):
        root = ET.fromstring(made[1])
        ET.SubElement(root, "uuid").text = "libvirt adds this"
        assert filters.is_ours(made[0], ET.tostring(root, encoding="unicode"))
        root.findall("rule")[-1].set("action", "accept")
        assert not filters.is_ours(made[0], ET.tostring(root, encoding="unicode"))
    assert not filters.is_ours("clean-traffic", golden("filter-sealed.xml"))


@pytest.mark.parametrize("bad", [{"opened_by": "x"}, {"protocol": "icmp"}])
def test_a_rule_that_cannot_be_meant_is_refused(bad: dict[str, str]) -> None:
    with pytest.raises(Refused):
        filters.forensic([Collector("192.0.2.1", 22, **bad)])
