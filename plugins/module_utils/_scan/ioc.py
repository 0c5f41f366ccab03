# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Indicators of compromise from a file of the responder: a plain list, or a STIX 2.1 bundle."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Callable

from .indicator_rules import rules

KINDS = ("sha256", "sha1", "md5", "paths", "names", "ips", "domains")
_LENGTHS = {"sha256": 64, "sha1": 40, "md5": 32}
# File systems of Windows, as this collection and as Linux call them
_CASELESS = frozenset(("ntfs", "fat", "exfat", "ntfs3", "vfat", "msdos", "fuseblk"))
_MOST_TOLD, _MOST_IGNORED = 1000, 50
# object:property = 'value' of a STIX pattern; such comparisons in brackets; and brackets joined by OR
_ONE = r"[a-z0-9-]+:[A-Za-z0-9_.'-]+\s*=\s*'(?:[^'\\]|\\.)*'"
_COMPARISON = re.compile(r"([a-z0-9-]+:[A-Za-z0-9_.'-]+)\s*=\s*'((?:[^'\\]|\\.)*)'")
_OBSERVED = re.compile(r"\[\s*%s(?:\s+(?:OR|AND)\s+%s)*\s*\]" % (_ONE, _ONE))
_PATTERN = re.compile(r"%s(?:\s+OR\s+%s)*" % (_OBSERVED.pattern, _OBSERVED.pattern))
_BELOW = "file:parent_directory_ref.path", "file:name"
_WINDOWS = re.compile(r"(\\\\[?.]\\)?([A-Za-z]:)?[\\/]")
_STIX = {
    "file:hashes.SHA-256": "sha256",
    "file:hashes.'SHA-256'": "sha256",
    "file:hashes.SHA-1": "sha1",
    "file:hashes.'SHA-1'": "sha1",
    "file:hashes.MD5": "md5",
    "file:hashes.'MD5'": "md5",
    "file:name": "names",
    "directory:path": "paths",
    "ipv4-addr:value": "ips",
    "ipv6-addr:value": "ips",
    "domain-name:value": "domains",
}


class BadIndicators(Exception):
    """The file can't be used; the sentence says why."""


@dataclass(frozen=True)
class Indicators:
    sha256: frozenset[str] = frozenset()
    sha1: frozenset[str] = frozenset()
    md5: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    ips: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    ignored: tuple[str, ...] = ()

    def of_content(self, stream: Callable[[], Iterable[bytes]]) -> list[str]:
        """The hashes among the indicators that this content has."""
        if not self._hashes:
            return []
        digests = [hashlib.new(kind, usedforsecurity=False) for kind in self._hashes]
        for part in stream():
            for digest in digests:
                digest.update(part)
        told = [(kind, digest.hexdigest()) for kind, digest in zip(self._hashes, digests)]
        return ["ioc_%s" % kind for kind, digest in told if digest in getattr(self, kind)]

    @cached_property
    def _hashes(self) -> list[str]:
        """The kinds that are looked for."""
        return [kind for kind in _LENGTHS if getattr(self, kind)]

    @property
    def of_files(self) -> bool:
        """Whether a file's hash or name is looked for."""
        return any(getattr(self, kind) for kind in (*_LENGTHS, "names"))

    def of_path(self, path: str, kind: str = "") -> list[str]:
        """The kinds of indicators that name this path. The `kind` of its file system says whether case counts."""
        paths, names = self.paths, self.names
        if kind in _CASELESS:
            (paths, names), path = self._folded, folded(path)
        found = ["ioc_path"] if path in paths else []
        return found + (["ioc_name"] if path.rsplit("/", 1)[-1] in names else [])

    @cached_property
    def _folded(self) -> tuple[frozenset[str], frozenset[str]]:
        return frozenset(map(folded, self.paths)), frozenset(map(folded, self.names))

    @property
    def names_as_bytes(self) -> frozenset[bytes]:
        return frozenset(name.encode("utf-8", "surrogateescape") for name in self.names)

    def digest(self) -> str:
        """Changes with what is looked for."""
        told = json.dumps([sorted(getattr(self, kind)) for kind in KINDS])
        return hashlib.sha256(told.encode()).hexdigest()

    def rules(self) -> str:
        """The addresses and domains as YARA rules, for the same pass."""
        return rules(self.ips | self.domains)


NO_INDICATORS = Indicators()


def folded(text: str) -> str:
    """Equal for all that Windows holds to be the same name, and for a few more."""
    return text.upper().casefold()


def parse(text: str, origin: str) -> Indicators:
    def once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        return _once(pairs, origin)

    try:
        content = json.loads(text, object_pairs_hook=once)
    except ValueError:
        content = _yaml(text, origin)
    if isinstance(content, dict) and content.get("type") == "bundle":
        return _checked(_stix(content), origin)
    if not isinstance(content, dict) or set(content) - set(KINDS):
        raise BadIndicators(
            "Cannot use the indicators in %s: write a mapping of %s to lists, or a STIX 2.1 bundle."
            % (origin, ", ".join(KINDS))
        )
    for kind, values in content.items():
        if not isinstance(values, (list, type(None))):  # a text would be taken letter by letter
            raise BadIndicators("Cannot use the indicators in %s: its %s are no list." % (origin, kind))
    return _checked([(kind, value) for kind in KINDS for value in content.get(kind) or ()], origin)


def _once(pairs: Iterable[tuple[str, Any]], origin: str) -> dict[str, Any]:
    """Of two lists of one kind the first would be lost."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise BadIndicators("Cannot use the indicators in %s: %.40r stands there twice." % (origin, key))
        found[key] = value
    return found


def merged(all_of: Iterable[Indicators]) -> Indicators:
    found = list(all_of)
    union = {kind: frozenset().union(*(getattr(one, kind) for one in found)) for kind in KINDS}
    ignored = list(dict.fromkeys(text for one in found for text in one.ignored))
    if len(ignored) > _MOST_IGNORED:
        more = "%d more patterns were not looked for" % (len(ignored) - _MOST_IGNORED)
        ignored = [*ignored[:_MOST_IGNORED], more]
    return Indicators(**union, ignored=tuple(ignored))


def _yaml(text: str, origin: str) -> Any:
    try:
        import yaml
    except ImportError as exc:
        raise BadIndicators(
            "Cannot read the indicators in %s: the library PyYAML is missing. Install it, or write JSON." % origin
        ) from exc

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            _once([(key.value, None) for key, _value in node.value if isinstance(key, yaml.ScalarNode)], origin)
            return dict(super().construct_mapping(node, deep))

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as exc:
        raise BadIndicators("Cannot read the indicators in %s: %s" % (origin, exc)) from exc


def _stix(bundle: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Any alternative of a pattern is enough, so each is looked for by itself; and told if it can't be."""
    for item in bundle.get("objects") or ():
        if not isinstance(item, dict) or item.get("type") != "indicator" or item.get("revoked"):
            continue
        pattern = str(item.get("pattern", "")).strip()
        if item.get("pattern_type", "stix") != "stix" or not _PATTERN.fullmatch(pattern):
            yield _ignored(pattern)
            continue
        for part in _OBSERVED.findall(pattern):
            yield from _observed(part)


def _observed(part: str) -> Iterator[tuple[str, Any]]:
    """What one pair of brackets asks for. Half of what AND joins would match what the whole does not."""
    found = [(what, re.sub(r"\\(.)", r"\1", value)) for what, value in _COMPARISON.findall(part)]
    if "AND" in _COMPARISON.sub("", part):
        both = dict(found)
        if len(found) != 2 or set(both) != set(_BELOW) or not all(both.values()):
            yield _ignored(part)
            return
        found = [("directory:path", "/".join(both[what] for what in _BELOW))]
    for what, value in found:
        kind = _STIX.get(what, "")
        yield (kind, value) if kind and _can_be_matched(kind, value) else _ignored("%s = '%s'" % (what, value))


def _ignored(pattern: str) -> tuple[str, str]:
    return "ignored", "the pattern %s was not looked for" % pattern[:_MOST_TOLD]


def _can_be_matched(kind: str, value: str) -> bool:
    """Feeds hold paths with variables, parts of paths, networks. One of those is no reason to refuse all the others."""
    try:
        return bool(_value(kind, value, ""))
    except BadIndicators:
        return False


def _checked(items: Iterable[tuple[str, Any]], origin: str) -> Indicators:
    sorted_out: dict[str, list[str]] = {kind: [] for kind in (*KINDS, "ignored")}
    for kind, value in items:
        if not isinstance(value, str) or not value or len(value) > 4096:
            told = reprlib.repr(value)  # aliases of YAML can make a short text endless
            raise BadIndicators("Cannot use %s of %s: the %s must be texts (quote them)." % (told, origin, kind))
        sorted_out[kind].append(_value(kind, value, origin))
    ignored = tuple(sorted_out.pop("ignored"))
    if not ignored and not any(sorted_out.values()):
        raise BadIndicators("Cannot use the indicators in %s: it holds none." % origin)
    return Indicators(**{kind: frozenset(values) for kind, values in sorted_out.items()}, ignored=ignored)


def _value(kind: str, value: str, origin: str) -> str:
    if kind in _LENGTHS:
        if not re.fullmatch("[0-9a-fA-F]{%d}" % _LENGTHS[kind], value):
            raise BadIndicators("Cannot use %r of %s: it is no %s." % (value, origin, kind))
        return value.lower()
    if kind == "ips":
        try:
            return str(ipaddress.ip_address(value.replace("%", " ")))  # an interface is of no other host's
        except ValueError as exc:
            raise BadIndicators("Cannot use %r of %s: it is no IP address." % (value, origin)) from exc
    if kind == "domains":
        if not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9])?", value):
            raise BadIndicators("Cannot use %r of %s: it is no domain name." % (value, origin))
        return value.lower()
    if kind == "paths":
        return _path(value, origin)
    if kind == "names" and ("/" in value or "\\" in value):
        raise BadIndicators("Cannot use %r of %s: a name holds no slash. Write it under paths." % (value, origin))
    return value


def _path(value: str, origin: str) -> str:
    """As on every volume: which of them Windows calls by which letter, nobody knows from outside."""
    start = _WINDOWS.match(value)
    if start is None or value.startswith(r"\\") and not start.group(1):
        told = "a path starts with a slash, or with a drive's letter and a backslash"
        raise BadIndicators("Cannot use %r of %s: %s." % (value, origin, told))
    is_windows = not value.startswith("/")
    parts = (value[start.end() :].replace("\\", "/") if is_windows else value).split("/")
    named = [part for part in parts if part not in ("", ".")]
    if not named or ".." in named:
        raise BadIndicators("Cannot use %r of %s: it names no file." % (value, origin))
    return "/" + "/".join(named)
