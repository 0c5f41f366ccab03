# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller adds to an append: a signature over the head, and the certificates. It signs nothing blindly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .certificate import certificate, certificate_path
from .entry import GENESIS, Entry
from .options import own_entry
from .signature import SignatureError, check_extends, principal, sign
from .spool import Anchor
from .verify import head_message


class Countersigning:
    """One append as the evidence host answered it, and what the controller still owes to it."""

    def __init__(
        self, options: Mapping[str, Any], sent: Sequence[Entry], result: dict[str, Any], anchor: Anchor, wanted: bool
    ) -> None:
        self.options, self.sent, self.result, self.anchor = options, sent, result, anchor
        self.uncertified: list[str] = result.pop("uncertified", [])
        newest = max((one["seq"] for one in result["recorded"]), default=result["head"]["seq"])
        if options["operation"] == "seal" and result["changed"]:
            newest = result["head"]["seq"]
        wanted = wanted or options["signed"] or options["operation"] in ("seal", "reopen")
        self.covered = result["signed_seq"] >= newest
        self.sign_due = wanted and not self.covered

    def make(self, lines: Sequence[str]) -> dict[str, Any]:
        """Entries and certificates for the second run, or a SignatureError."""
        if not self.options["signing_key"]:
            raise SignatureError("no signing key is configured")
        head = (self.result["head"]["seq"], self.result["head"]["hash"])
        self._check(lines, head)
        entries = []
        if self.sign_due:
            signature, signer = self._sign(head_message(self.options["case"], *head))
            over = {"over_seq": head[0], "over": head[1], "signature": signature, "principal": signer}
            entries.append(own_entry(self.options, "signature", result=over))
        return {"entries": entries, "certificates": [self._certify(path) for path in self.uncertified]}

    def merge(self, second: Mapping[str, Any], made: Mapping[str, Any]) -> None:
        """Take over what the second run changed, and remember what was signed."""
        if made["entries"]:
            self.anchor.save(made["entries"][0]["result"]["over_seq"], made["entries"][0]["result"]["over"])
            self.result["signed"] = True
        if self.options["certificate"]:
            self.result["certificates"] = [certificate_path(path) for path in self.uncertified]
        self.result.update({name: second[name] for name in ("head", "anchor", "signed_seq", "lease", "epoch")})
        self._changed(second["diff"]["after"])

    def predict(self) -> None:
        if self.options["signing_key"]:
            actions = [("certificate", self._entry_of(path)[0]["target"]) for path in self.uncertified]
            actions += [("signature", "")] * self.sign_due
            numbered = enumerate(actions, self.result["head"]["seq"] + 1)
            self._changed(
                "".join(f"{seq} case/{action} {target}".rstrip() + "\n" for seq, (action, target) in numbered)
            )

    def _changed(self, shown: str) -> None:
        self.result["changed"] = True
        diff = self.result.get("diff") or {"before": ""}
        self.result["diff"] = {**diff, "after": diff.get("after", "") + shown}

    def _check(self, lines: Sequence[str], head: tuple[int, str]) -> None:
        stands = self.result["recorded"]
        if len(stands) != len(self.sent) and self.options["operation"] != "reopen":
            raise SignatureError("the evidence host did not say where each entry stands")
        signed = self.anchor.load() or (0, GENESIS)
        try:
            check_extends(signed, lines, head, [(entry, one["seq"]) for entry, one in zip(self.sent, stands)])
        except SignatureError as exc:
            advice = f"Run verify. If the change is explained, remove {self.anchor.path}" if signed[0] else "Run verify"
            raise SignatureError(f"{exc} ({signed[0]}:{signed[1]}). {advice}") from exc

    def _sign(self, message: bytes) -> tuple[str, str]:
        signature = sign(self.options["signing_key"], message)
        if self.options["signing_principal"]:
            return signature, self.options["signing_principal"]
        if self.options["allowed_signers"]:
            return signature, principal(signature, self.options["allowed_signers"])
        return signature, self.options["actor"]

    def _certify(self, path: str) -> dict[str, Any]:
        entry, stands = self._entry_of(path)
        artefact = next(one for one in entry["artefacts"] if one["path"] == path)
        text = certificate(self.options["case"], entry, artefact, stands["seq"], stands["hash"])
        return {"artefact": path, "text": text, "signature": self._sign(text.encode("utf-8"))[0]}

    def _entry_of(self, path: str) -> tuple[Entry, Mapping[str, Any]]:
        """The newest sent entry that names the artefact, and where it stands."""
        pairs = list(zip(self.sent, self.result["recorded"]))
        return next(pair for pair in reversed(pairs) if any(one["path"] == path for one in pair[0]["artefacts"]))
