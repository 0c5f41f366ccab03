# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Indicators of compromise: what is read from a file, what is refused, and what matches."""

from __future__ import annotations

import hashlib
import json

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import WINDOW, Content, RuleFile, Yara
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ioc import BadIndicators, merged, parse

PLAIN = """
sha256: [aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]
names: [invoice.com]
paths: [/tmp/.x/run]
ips: [203.0.113.9, "2001:DB8::1"]
domains: [Bad.example]
"""


def stix(*patterns: str) -> str:
    objects = [{"type": "indicator", "pattern_type": "stix", "pattern": pattern} for pattern in patterns]
    return json.dumps({"type": "bundle", "id": "bundle--1", "objects": [*objects, {"type": "identity"}]})


def test_a_plain_list_is_read() -> None:
    found = parse(PLAIN, "x.yml")
    assert found.names == {"invoice.com"}
    assert found.ips == {"203.0.113.9", "2001:db8::1"}
    assert found.domains == {"bad.example"}
    assert found.of_path("/home/u/invoice.com") == ["ioc_name"]
    assert found.of_path("/tmp/.x/run") == ["ioc_path"]
    assert found.of_path("/invoice.com.txt") == []


def test_stix_comparisons_are_looked_for_and_others_told() -> None:
    digest = hashlib.sha256(b"evil").hexdigest()
    found = parse(
        stix(
            f"[file:hashes.'SHA-256' = '{digest}']",
            "[ipv4-addr:value = '203.0.113.9' OR domain-name:value = 'bad.example']",
            "[file:name = 'it\\'s.exe']",
            "[file:name = 'a' AND file:size = 5]",
            "[process:command_line = 'x']",
        ),
        "x.json",
    )
    assert (found.ips, found.domains, found.names) == ({"203.0.113.9"}, {"bad.example"}, {"it's.exe"})
    assert found.of_content(lambda: [b"ev", b"il"]) == ["ioc_sha256"]
    assert found.of_content(lambda: [b"good"]) == []
    assert len(found.ignored) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a", "write a mapping"),
        ("hashes: [a]", "write a mapping"),
        ("sha256: [abc]", "it is no sha256"),
        ("ips: [999.1.1.1]", "it is no IP address"),
        ("domains: ['a b']", "it is no domain name"),
        ("paths: [etc/passwd]", "starts with a slash"),
        ("names: [1]", "must be texts"),
        ("names: []", "holds none"),
        ("a: [", "Cannot read the indicators"),
    ],
)
def test_a_bad_file_is_refused(text: str, words: str) -> None:
    with pytest.raises(BadIndicators, match=words):
        parse(text, "x.yml")


@pytest.mark.parametrize(
    ("data", "matches"),
    [
        (b"connect 203.0.113.9:443", True),
        (b"203.0.113.9", True),
        (b"1203.0.113.9", False),
        (b"203.0.113.95", False),
        (b"203x0y113z9", False),
        (b"http://BAD.example/x", True),
        (b"notbad.example", False),
        (b"bad.example.org", True),
        ("GET bad.example ".encode("utf-16-le"), True),
        (b"via 2001:db8::1 dev", True),
    ],
)
def test_addresses_and_domains_become_rules(data: bytes, matches: bool) -> None:
    rules = merged([parse(PLAIN, "x.yml")]).rules()
    engine = Yara([RuleFile("i", rules, "0", 0)], 60)
    hits, _gap = engine.scan(Content(len(data), lambda _at, _length: data, WINDOW))
    assert bool(hits) == matches
    assert all(hit.is_hint for hit in hits)


def test_what_is_looked_for_decides_on_the_digest() -> None:
    assert parse(PLAIN, "a").digest() == parse(PLAIN, "b").digest() != parse("names: [x]", "a").digest()
