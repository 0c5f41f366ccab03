# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One scan from the caller's side: open the files, start the confined children, listen, and judge."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Callable

from .abreast import Abreast
from .baseline import unpack
from .chain import Layer
from .clamd import clamd_of, doubts
from .engines import BadRules, Engine, EngineFailed, RuleFile, Yara, compiled
from .former import tell_records
from .given import read_whole, rule_files, why_not
from .groups import are_clean, dealt, each_disk, joined, merged, parts_of, to_read, together, worst
from .inside import Archives
from .ioc import NO_INDICATORS, Indicators
from .judge import Emit, Judge
from .known import Base, Known, Records, binding, find_base, state_of
from .listen import Listener, Progress, announcing
from .opening import BadInput, DiskRequest, LayerSpec, opened
from .sandbox import Ended, Job, Limits, run_all
from .scanner import DiskSpec, Scanner
from .seats import Seats, fitting
from .self_test import open_images, passes
from .share import Share
from .verdict import BaseUse, Tally, ageing, printable

MAX_RULE_FILE = 256 << 20

# Who asks for a scan needs these beside what is defined here
__all__ = ["BadInput", "DiskRequest", "LayerSpec", "opened"]


@dataclass(frozen=True)
class Request:
    """What to scan, and how. Without a directory nothing is known, and nothing is kept."""

    disks: tuple[DiskRequest, ...]
    rules: tuple[RuleFile, ...]
    clamd_socket: str
    engines_required: tuple[str, ...]
    max_file_size: int
    progress_file: str
    limits: Limits
    indicators: Indicators = NO_INDICATORS
    directory: str = ""
    clamd_database: str = ""
    several: bool = False  # several states of the same disks share most of their contents
    at_once: int = 0  # processes on this host that scan at once; 0: as many as it has cores and memory for
    records: Records | None = None  # filled by the scan
    dry: bool = False  # nothing may be kept
    file_timeout: int = 300  # seconds that one file may take, with all that lies in it
    archives: Archives = Archives()

    @property
    def children(self) -> int:
        return self.at_once or fitting(self.limits.memory)


@dataclass(frozen=True)
class Prepared:
    """Ready to scan: what was loaded while the files of this host could still be read."""

    judge: Judge
    binding: str
    images: tuple[Layer, ...]

    def is_trusted(self, emit: Emit) -> bool:
        return passes(self.judge.engines, self.images, emit)


def check_directory(request: Request) -> None:
    known = Known(request.directory)
    why = "" if not request.directory else known.doubt() if request.dry else known.create()
    if why:
        raise BadInput(why)


def scan(request: Request, rules: Any = None) -> dict[str, Any]:
    """One state of the disks, each in a child of its own. One that dies leaves its own disk incomplete, no other.
    `rules`: what `compiled` made of the request's, by a caller that scans more than once."""
    began = clocks()
    check_directory(request)
    with opened(request.disks, request.limits.deadline) as (disks, _layers):
        groups = together(disks, request.limits, request.children)
        rules = loaded(request) if rules is None else rules
        left = max(1.0, began[0] + request.limits.deadline - time.monotonic())
        request = replace(request, limits=replace(request.limits, deadline=left))
        # A record is told by one that read all of its disk
        sizes = [to_read(one, request.directory, request.rules) if request.records is None else 0 for one in groups]
        counts = dealt(sizes, request.children, rules)
        parts = []
        for number, (group, count) in enumerate(zip(groups, counts)):
            for share in (Share(index, count) for index in range(count)):
                prepare_ = partial(_prepare_scan, request, group, rules, share)
                parts.append(Part(layers_of_all(group), prepare_, [disk.name for disk in group], number))
        told = confined_all(request, parts)
    tallies = []
    for number, group in enumerate(groups):
        which = " of disk %s" % ", ".join(disk.name for disk in group) if groups[1:] else ""
        shares = [one for one, part in zip(told, parts) if part.of == number]
        tallies.append(together_told(shares, which))
        if request.records is not None:
            listener = shares[0][0]
            is_one = len({one.binding for one, _ended in told}) == 1
            request.records.binding = listener.binding if is_one else ""
            request.records.bodies.update({name: bytes(body) for name, body in listener.records.items()})
    return {**merged(tallies).as_result(), **spent(in_all(told, began)), "disks": each_disk(groups, tallies)}


def together_told(shares: Sequence[tuple[Listener, Ended]], which: str = "") -> Tally:
    for listener, ended in shares:
        outcome(listener.tally, ended, which)
    return joined([listener.tally for listener, _ended in shares], which)


def layers_of_all(disks: Sequence[DiskSpec]) -> list[Layer]:
    return list(dict.fromkeys(layer for disk in disks for layer in (*disk.layers, *disk.clone_of)))


def loaded(request: Request) -> Any:
    """What children share is loaded before they are forked. What fails here fails in each of them."""
    try:
        return compiled(request.rules)
    except BadRules as exc:
        raise BadInput(str(exc)) from exc
    except EngineFailed:
        return None


def _prepare_scan(
    request: Request, disks: Sequence[DiskSpec], rules: Any, share: Share, emit: Emit
) -> Callable[[Emit], None]:
    prepared = prepare(request, emit, rules=rules, share=share)
    if prepared is None:
        return lambda emit: None
    on_top = with_bases(request, prepared, disks, emit if share.index == 0 else lambda kind, body: None)

    def work(emit: Emit) -> None:
        if prepared.is_trusted(emit):
            scanner = Scanner(prepared.judge, recording=request.records is not None)
            scanner.run(unpacked(on_top))
            tell_records(emit, scanner.records or {})
            emit("met", share.proof())
            emit("finished", {})

    return work


@dataclass(frozen=True)
class Part:
    """The layers that one child reads, what it does, and the disks that it may tell a record of.

    `of`: the same for those that share their disks. `keep`: descriptors that it may use beside those of its layers.
    """

    layers: Sequence[Layer]
    prepare: Callable[[Emit], Callable[[Emit], None]]
    disks: Sequence[str] = ()
    of: int = 0
    keep: Sequence[int] = ()


def confined(
    request: Request, layers: Sequence[Layer], prepare_: Callable[[Emit], Callable[[Emit], None]]
) -> tuple[Listener, Ended]:
    """Run one child, listen to it, and keep what it found clean."""
    began = clocks()
    told = confined_all(request, [Part(layers, prepare_)])
    return told[0][0], replace(in_all(told, began), trouble=told[0][1].trouble)


def confined_all(
    request: Request, parts: Sequence[Part], abreast: Abreast | None = None
) -> list[tuple[Listener, Ended]]:
    """Run a child for each part; how each ended."""
    before = [[state_of(layer) for layer in part.layers] for part in parts]
    progress = Progress(request.progress_file, time.monotonic())
    most = abreast.most if abreast is not None else 0
    listeners = [Listener(progress, most, part.disks, part.of) for part in parts]

    def take(index: int, kind: str, body: dict[str, Any]) -> None:
        listeners[index].take(kind, body)
        if abreast is not None and kind == "finished":
            abreast.heard(listeners)

    def over(index: int, ended: Ended) -> None:
        listener = listeners[index]
        listener.pace.over, listener.is_well = True, not ended.trouble
        for layer, state in zip(parts[index].layers, before[index]):
            if state_of(layer)[2:6] != state[2:6]:
                for tally in listener.tallies():
                    tally.add_reason("%s was changed while it was read." % layer.path)
        # Those that found something, or could not read it all, read what an attacker wrote: nothing of theirs is
        # relied on
        shares = [one for one, part in zip(listeners, parts) if part.of == parts[index].of]
        if request.directory and not request.dry and all(one.binding for one in shares) and are_clean(shares):
            for one in shares:
                one.keep(Known(request.directory))
        if abreast is not None:
            abreast.heard(listeners)

    jobs = [
        Job(announcing(part.prepare), [*(layer.fd for layer in part.layers), *part.keep], partial(take, index))
        for index, part in enumerate(parts)
    ]
    seats = abreast.seats if abreast is not None else seats_of(request)
    ended = run_all(jobs, request.limits, progress.write, request.children, seats, over)
    refused = [listener.refused for listener in listeners if listener.refused]
    if refused:
        raise BadInput(refused[0])
    tallies = [joined([one.tally for one in listeners if one.pace.of == of]) for of in {part.of for part in parts}]
    progress.write(phase="done", message=worst(tally.verdict() for tally in tallies).value)
    return list(zip(listeners, ended))


def seats_of(request: Request) -> Seats:
    try:
        return Seats(request.children)
    except OSError as exc:
        raise BadInput("Cannot count the scans of this host: %s." % exc) from exc


def outcome(tally: Tally, ended: Ended, which: str = "") -> dict[str, Any]:
    if ended.trouble:
        tally.add_reason("The scan%s did not end: %s." % (which, ended.trouble))
    return tally.as_result()


def clocks() -> tuple[float, float]:
    """Now, by the clock and by what this process has spent."""
    return time.monotonic(), time.process_time()


def in_all(told: Sequence[tuple[Listener, Ended]], began: tuple[float, float]) -> Ended:
    """What all of them took together, and this process since then: it loads the rules."""
    seconds, own = (now - then for now, then in zip(clocks(), began))
    return Ended("", own + sum(ended.cpu_seconds for _listener, ended in told), seconds)


def spent(ended: Ended) -> dict[str, Any]:
    return {"seconds": round(ended.seconds, 3), "cpu_seconds": round(ended.cpu_seconds, 3)}


def prepare(
    request: Request, emit: Emit, remember: bool = True, rules: Any = None, share: Share | None = None
) -> Prepared | None:
    """Load engines, rules and what is known, with the caller's rights. Nothing hostile was read yet."""
    engines: list[Engine] = []
    makers: dict[str, Callable[[], Engine]] = {}
    if request.rules or "yara" in request.engines_required:
        makers["yara"] = lambda: Yara(request.rules, request.file_timeout, rules)
    if request.clamd_socket or "clamd" in request.engines_required:
        makers["clamd"] = lambda: clamd_of(request, emit)
    for make in makers.values():
        try:
            engines.append(make())
        except BadRules as exc:
            emit("refused", {"text": str(exc)})
            return None
        except EngineFailed as exc:
            emit("reason", {"text": str(exc)})
    described = [engine.describe() for engine in engines]
    for one in described:
        emit("engine", one)
        for text in doubts(one):
            emit("reason" if "clamd" in request.engines_required else "note", {"text": text})
    if not engines:
        emit("reason", {"text": "No engine is ready, so nothing was read."})
        return None
    ignored = ["Indicators of compromise: %s." % text for text in request.indicators.ignored]
    for text in (*ageing(described), *ignored):
        emit("note", {"text": text})
    bound, whole = "", request.limits.memory // 4
    if request.directory and all(one.get("database") != "unknown" for one in described):
        limits = [request.max_file_size, whole, vars(request.archives)]
        bound = binding(described, [request.indicators.digest(), *limits])
        emit("binding", {"sha256": bound})
    known: set[bytes] | None = set() if request.several else None
    if bound and remember:
        known = Known(request.directory).contents(bound)
    most, seconds = request.max_file_size, request.file_timeout
    judge = Judge(engines, emit, whole, most, request.indicators, known, request.archives, seconds, share=share)
    return Prepared(judge, bound, open_images())


@dataclass(frozen=True)
class OnTop:
    disk: DiskSpec
    base: tuple[Layer, ...]
    body: bytes | None


def with_bases(request: Request, prepared: Prepared, disks: Sequence[DiskSpec], emit: Emit) -> list[OnTop]:
    """Each disk with the base that it may be scanned on top of."""
    looked: dict[tuple[object, ...], tuple[Base | None, Sequence[Layer], str]] = {}
    formers = {printable(disk.name, 64): disk.former for disk in request.disks}
    found, told = [], set[BaseUse]()

    for disk, former in ((disk, formers.get(disk.name)) for disk in disks):
        if former is not None:
            why = disk.doubt
            if not why and former.binding != prepared.binding:
                why = "it was scanned with other rules, engines or limits"
            emit("base", vars(BaseUse(disk.name, former.name, not why, why, former.at)))
            if not why:
                emit("below", {"of": "the scan before", "count": former.unopened})  # nobody looks at them again
                found.append(OnTop(disk, (), former.body))
                continue
        key = (disk.layers, bool(disk.snapshot), disk.clone_of)
        if key not in looked:
            looked[key] = find_base(request.directory, prepared.binding, [base for base, _on_top in parts_of(disk)])
        base, layers, why = looked[key]
        path, at = (printable(layers[0].path), int(base.head["written"])) if base else ("", 0)
        use = BaseUse(disk.name, path, not why, why, at)
        if use not in told:
            told.add(use)
            emit("base", vars(use))
        if base and use.used:
            emit("below", {"of": path, "count": base.unopened})
        found.append(OnTop(disk, tuple(layers), base.body if base and not why else None))
    return found


def unpacked(disks: Sequence[OnTop]) -> list[DiskSpec]:
    """In the child: an index was written by one that read hostile disks."""
    indexes = {id(one.body): unpack(one.body) for one in {id(one.body): one for one in disks}.values() if one.body}
    return [replace(one.disk, base=one.base, index=indexes[id(one.body)]) if one.body else one.disk for one in disks]


def read_rules(paths: Sequence[str]) -> Iterator[RuleFile]:
    """All rule files named, and all *.yar and *.yara files in the directories named."""
    for path in paths:
        try:
            names = rule_files(path)
        except OSError as exc:
            raise BadInput("Cannot use the rules in %s: %s." % (path, exc.strerror)) from exc
        for name in names:
            try:
                raw, mtime = read_whole(name, MAX_RULE_FILE)
                yield RuleFile(name, raw.decode("utf-8"), hashlib.sha256(raw).hexdigest(), mtime)
            except (OSError, UnicodeDecodeError) as exc:
                raise BadInput("Cannot read the rule file %s: %s." % (name, why_not(exc))) from exc
