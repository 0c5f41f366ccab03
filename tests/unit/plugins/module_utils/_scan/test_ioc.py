# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Indicators of compromise: what is read from a file, what is refused, and what matches."""

from __future__ import annotations

import hashlib
import json

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import (
    WINDOW,
    Content,
    Hit,
    RuleFile,
    Yara,
)
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ioc import (
    BadIndicators,
    Indicators,
    merged,
    parse,
)

PLAIN = """
sha256: [aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]
names: [invoice.com]
paths: [/tmp/.x/run]
ips: [203.0.113.9, "2001:DB8::1"]
domains: [Bad.example]
"""
# A list of nine lists of nine lists ... : as a text it has no end
BOMB = "names:\n- &a0 [x]\n%ssha256: [*a9]\n" % "".join(
    f"- &a{number + 1} [{', '.join([f'*a{number}'] * 9)}]\n" for number in range(9)
)


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


@pytest.mark.parametrize("kind", ["ntfs", "fat", "exfat", "vfat"])
def test_case_does_not_count_where_windows_ignores_it(kind: str) -> None:
    found = parse("names: [evil.exe, Übel.exe]\npaths: ['/Temp/Run.exe']", "x.yml")
    assert found.of_path("/a/Evil.EXE", kind) == found.of_path("/ÜBEL.Exe", kind) == ["ioc_name"]
    assert found.of_path("/temp/RUN.exe", kind) == ["ioc_path"]
    assert found.of_path("/a/Evil.EXE", "ext") == found.of_path("/temp/RUN.exe", "xfs") == []
    assert found.of_path("/a/evil.exe", "ext") == ["ioc_name"]


@pytest.mark.parametrize(
    "path",
    [
        r"C:\Windows\Temp\x.exe",
        "c:/Windows/Temp/x.exe",
        r"\Windows\Temp\x.exe",
        r"\\?\D:\Windows\Temp\x.exe",
        r"C:\Windows\\Temp\x.exe",
    ],
)
def test_a_path_of_windows_is_looked_for_on_every_volume(path: str) -> None:
    found = parse(json.dumps({"paths": [path]}), "x.json")
    assert found.paths == {"/Windows/Temp/x.exe"}


def test_a_path_is_looked_for_as_directories_spell_it() -> None:
    assert parse(r"paths: [/tmp//.x/./run/, '/tmp/a\b']", "x.yml").paths == {"/tmp/.x/run", r"/tmp/a\b"}


def test_every_alternative_of_a_stix_pattern_is_looked_for_or_told() -> None:
    found = parse(
        stix(
            "[file:name = 'a.exe'] OR [file:name = 'b.exe' OR file:name = 'c ] OR [.exe']",
            r"[directory:path = 'C:\\Users\\Public\\x']",
            r"[file:name = 'run.dll' AND file:parent_directory_ref.path = 'C:\\Windows\\Temp']",
            "[file:parent_directory_ref.path = '/opt/.x' AND file:name = 'run']",
            "[file:name = 'd.exe'] OR [process:command_line = 'x']",
            "[file:name = 'e.exe' OR file:size = '5']",
        ),
        "x.json",
    )
    assert found.names == {"a.exe", "b.exe", "c ] OR [.exe", "d.exe", "e.exe"}
    assert found.paths == {"/Users/Public/x", "/Windows/Temp/run.dll", "/opt/.x/run"}
    assert len(found.ignored) == 2
    assert "process:command_line" in found.ignored[0]
    assert "file:size" in found.ignored[1]


def test_thousands_that_cannot_be_looked_for_are_counted() -> None:
    found = merged([parse(stix(*(f"[file:size = '{size}']" for size in range(3000))), "x.json")])
    assert len(found.ignored) < 100
    assert found.ignored[-1] == "2950 more patterns were not looked for"


@pytest.mark.parametrize(
    "pattern",
    [
        "[file:name = 'a' AND file:name = 'b']",
        "[file:name = 'a' AND file:parent_directory_ref.path = '/b' OR file:name = 'c']",
        "[file:name = '' AND file:parent_directory_ref.path = '/b']",
        "[file:name = 'a'] AND [file:name = 'b']",
        "[file:name = 'a'] FOLLOWEDBY [file:name = 'b']",
        "[file:name LIKE 'a%']",
        "[file:name = 'a'] WITHIN 5 SECONDS",
        "[directory:path = '%APPDATA%\\\\x']",
        r"[directory:path = 'C:\Windows\x']",
        "[directory:path = 'x/y']",
        "[file:name = 'x/y']",
        "[file:name = '%TEMP%\\\\evil.exe']",
        "[ipv4-addr:value = '203.0.113.0/24']",
        "[domain-name:value = '*.bad.example']",
        "[file:hashes.MD5 = 'abc']",
        "[file:name = 'a' AND file:size = %s]" % ("5" * 5000),
    ],
)
def test_a_stix_pattern_that_cannot_be_looked_for_is_told(pattern: str) -> None:
    found = parse(stix(pattern), "x.json")
    assert found == Indicators(ignored=found.ignored)
    assert len(found.ignored) == 1
    assert pattern[1:10] in found.ignored[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a", "write a mapping"),
        ("hashes: [a]", "write a mapping"),
        ("sha256: [abc]", "it is no sha256"),
        ("ips: [999.1.1.1]", "it is no IP address"),
        ("ips: ['fe80::1%eth0']", "it is no IP address"),
        ("domains: ['a b']", "it is no domain name"),
        ("paths: [etc/passwd]", "starts with a slash"),
        (r"paths: ['%TEMP%\x.exe']", "starts with a slash"),
        (r"paths: ['\\server\share\x.exe']", "starts with a slash"),
        (r"paths: ['C:x.exe']", "starts with a slash"),
        (r"paths: ['C:\']", "names no file"),
        ("paths: [/tmp/../x]", "names no file"),
        (r"names: ['C:\x.exe']", "holds no slash"),
        ("names: [tmp/x]", "holds no slash"),
        ("names: [1]", "must be texts"),
        (r"names: ['%TEMP%\x.exe']", "holds no slash"),
        ("names: evil", "are no list"),
        ("names: {evil.exe: 1}", "are no list"),
        ("names: ''", "are no list"),
        ('{"names": "evil"}', "are no list"),
        ("names: [a.exe]\nsha256: []\nnames: [b.exe]", "stands there twice"),
        ('{"names": ["a.exe"], "sha256": [], "names": ["b.exe"]}', "stands there twice"),
        (BOMB, "must be texts"),
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
        (b"my-bad.example", False),
        (b"bad.example.org", False),
        (b"bad.example-2", False),
        (b"www.bad.example/x", True),
        (b"WWW.BAD.EXAMPLE", True),
        (b"it was bad.example.", True),
        (b"bad.example, bad.example.org", True),
        (b"203.0.113.9.7", False),
        (b"7.203.0.113.9", False),
        (b"from 203.0.113.9.", True),
        (b"203.0.113.9.pcap", True),
        (b"203.0.113.1-203.0.113.9", True),
        (b"::ffff:203.0.113.9", True),
        ("GET bad.example ".encode("utf-16-le"), True),
        ("www.bad.example".encode("utf-16-le"), True),
        ("notbad.example".encode("utf-16-le"), False),
        ("bad.example.org".encode("utf-16-le"), False),
        ("203.0.113.9.7".encode("utf-16-le"), False),
        ("\u201cBAD.example\u201d".encode("utf-16-le"), True),
        (b"\x07" + "bad.example".encode("utf-16-le") + b"\0\0", True),
        (b"A" + "203.0.113.9".encode("utf-16-le") + b"\0\0", True),
        (b"via 2001:db8::1 dev", True),
        (b"VIA 2001:DB8::1/64", True),
        (b"[2001:db8::1]:443", True),
        (b"2001:db8:0:0:0:0:0:1", True),
        (b"2001:0db8:0000:0000:0000:0000:0000:0001", True),
        ("2001:0DB8::0001".encode("utf-16-le"), True),
        (b"2001:db8::1: unreachable", True),
        (b"ip:2001:db8::1", True),
        (b"2001:db8::1:2", False),
        (b"2001:db8::12", False),
        (b"1:2001:db8::1", False),
        (b"2001:db8:1::1", False),
    ],
)
def test_addresses_and_domains_become_rules(data: bytes, matches: bool) -> None:
    hits = _found(data)
    assert bool(hits) == matches
    assert all(hit.is_hint for hit in hits)


def _found(data: bytes) -> list[Hit]:
    engine = Yara([RuleFile("i", merged([parse(PLAIN, "x.yml")]).rules(), "0", 0)], 60)
    hits, _gap = engine.scan(Content(len(data), lambda _at, _length: data, WINDOW))
    return hits


@pytest.mark.parametrize("encoding", ["ascii", "utf-16-le"])
@pytest.mark.parametrize("begun", ["203.0.113.%d", "2001:db8::%x"])
def test_a_network_of_addresses_is_one_thing_to_be_looked_for(begun: str, encoding: str) -> None:
    """Else YARA would hold each place where one may begin against all of them. Which one it was is told."""
    values = [begun % number for number in range(256)]
    text = parse(f"ips: {values[1:255]}".replace("'", '"'), "x.yml").rules()
    assert text.count("rule ") <= 4
    engine = Yara([RuleFile("i", text, "0", 0)], 60)
    data = " ".join(value + "zz" if number % 2 else value for number, value in enumerate(values)).encode(encoding)
    hits, _gap = engine.scan(Content(len(data), lambda _at, _length: data, WINDOW))
    assert sorted(hit.rule for hit in hits) == sorted("ioc_network_" + value for value in values[2:255:2])
    assert {data[hit.offset :].decode(encoding).split()[0] for hit in hits} == set(values[2:255:2])


@pytest.mark.parametrize("encoding", ["ascii", "utf-16-le"])
def test_an_address_is_told_where_it_first_stands_by_itself(encoding: str) -> None:
    parts = "203.0.113.9.7, 1203.0.113.9, ", "203.0.113.9, 203.0.113.9"
    before, after = (part.encode(encoding) for part in parts)
    assert [hit.offset for hit in _found(before + after)] == [len(before)]


def test_an_address_behind_more_matches_than_the_engine_tells_is_not_missed() -> None:
    before = b"1203.0.113.9 " * 1_000_000
    assert [(hit.rule, hit.offset) for hit in _found(before + b"203.0.113.9")] == [
        ("ioc_network_203.0.113.9", len(before))
    ]
    assert not _found(b"1203.0.113.9 " * 1000)


@pytest.mark.parametrize("told", ["::ffff:203.0.113.9", "::FFFF:cb00:7109"])
@pytest.mark.parametrize("text", [b"::ffff:203.0.113.9", b"0:0:0:0:0:FFFF:203.0.113.9", b"::ffff:cb00:7109"])
def test_an_address_of_IPv4_in_one_of_IPv6_is_found_however_it_is_written(told: str, text: bytes) -> None:
    engine = Yara([RuleFile("i", parse(f"ips: ['{told}']", "x.yml").rules(), "0", 0)], 60)
    for data, count in ((text, 1), (text + b"5", 0)):
        hits, _gap = engine.scan(Content(len(data), lambda _at, _length, data=data: data, WINDOW))  # type: ignore[misc]
        assert len(hits) == count


def test_what_is_looked_for_decides_on_the_digest() -> None:
    assert parse(PLAIN, "a").digest() == parse(PLAIN, "b").digest() != parse("names: [x]", "a").digest()
