# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scans in the process of the test, as a whole and on top of a golden image."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ansible_collections.vmward.remediation.plugins.module_utils._scan.chain import Layer
from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import Yara
from ansible_collections.vmward.remediation.plugins.module_utils._scan.ioc import NO_INDICATORS, Indicators
from ansible_collections.vmward.remediation.plugins.module_utils._scan.judge import Judge
from ansible_collections.vmward.remediation.plugins.module_utils._scan.listen import Listener, Progress
from ansible_collections.vmward.remediation.plugins.module_utils._scan.scanner import DiskSpec, Scanner
from ansible_collections.vmward.remediation.plugins.module_utils._scan.verdict import Tally
from ansible_collections.vmward.remediation.tests.corpus import disks
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES


class Direct:
    """Scans in this process, so that hundreds of them take seconds."""

    def __init__(self, golden: Path, indicators: Indicators = NO_INDICATORS, kind: str = "raw") -> None:
        self._engine, self._indicators = Yara(RULES, 60), indicators
        self._golden = Layer(str(golden), kind, os.open(golden, os.O_RDONLY))
        scanner, tally = self._scanner(indexing=True)
        scanner.run([DiskSpec("vda", (self._golden,))])
        self._index = scanner.index
        tally().finished = True
        assert tally().verdict().value == "clean", tally().reasons

    def _scanner(self, indexing: bool = False) -> tuple[Scanner, Callable[[], Tally]]:
        listener = Listener(Progress("", 0))
        judge = Judge([self._engine], listener.take, 1 << 28, indicators=self._indicators)
        return Scanner(judge, indexing), lambda: listener.tally

    def look(self, image: Path, on_top: bool, overlay: bool = False) -> Tally:
        """`overlay`: the image lies on the golden one, in qcow2; else it is a raw copy."""
        layer = Layer(str(image), "qcow2" if overlay else "raw", os.open(image, os.O_RDONLY))
        scanner, tally = self._scanner()
        spec = DiskSpec("vda", (layer, self._golden) if overlay else (layer,))
        if on_top:
            spec = replace(spec, base=(self._golden,), index=self._index)
        scanner.run([spec])
        os.close(layer.fd)
        tally().finished = True
        return tally()


def found(tally: Tally) -> set[tuple[str, str, str]]:
    return {(finding.path, finding.rule, finding.sha256) for finding in tally.findings}


class Golden:
    """An image that was found clean, and copies of it, scanned both ways."""

    def __init__(self, image: Path, indicators: Indicators = NO_INDICATORS) -> None:
        self.image, self.place = image, image.parent
        self.direct = Direct(image, indicators)

    def copy(self) -> Path:
        image = self.place / "changed.img"
        disks.run("cp", "--sparse=always", self.image, image)
        return image

    def both(self, image: Path) -> tuple[Tally, Tally]:
        """As a whole, and by the difference, which must find the same and may be clean only where the whole is."""
        whole, delta = self.direct.look(image, False), self.direct.look(image, True)
        assert found(delta) == found(whole), (whole.reasons, delta.reasons)
        if delta.verdict().value == "clean":
            assert whole.verdict().value == "clean", whole.reasons
        return whole, delta
