# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of the messages in one line."""

from __future__ import annotations

from ansible_collections.vmward.remediation.plugins.action.case_notify import summary


def test_nobody_was_told_where_nobody_is_named() -> None:
    assert summary(0, [], [], 0) == "nobody was told, no contact is named"
    assert summary(2, [], [], 0) == "everybody was told already"
