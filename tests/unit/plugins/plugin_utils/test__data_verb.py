# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long the job of a long verb may take, and when it is looked at."""

from __future__ import annotations

from itertools import islice

import pytest

from ansible_collections.vmward.remediation.plugins.plugin_utils._data_verb import ASK, looks, seconds


@pytest.mark.parametrize(("told", "found"), [(30, 30), ("30", 30), (None, 7200), ("soon", 7200), ([], 7200)])
def test_a_deadline_that_is_none_is_left_to_the_module(told: object, found: int) -> None:
    """Which names the option."""
    assert seconds(told, 7200) == found


def test_what_ends_at_once_is_seen_soon_and_what_lasts_is_asked_rarely() -> None:
    told = list(islice(looks(), 6))
    assert told == sorted(told)
    assert told[0] <= 1
    assert told[-1] == ASK
