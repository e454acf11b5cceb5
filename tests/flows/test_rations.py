"""What is free, counted here and by others."""

import pytest

from routstr.errors import RateLimited
from routstr.flows.rations import EarlyLeaves


def test_what_was_noted_since_others_were_asked_still_counts() -> None:
    now_s = [1000.0]
    ration = EarlyLeaves(events_max=2, window_s=600, now_s=lambda: now_s[0])
    ration.note("key")
    ration.note("key")  # not committed yet, so an answer that comes late does not have it
    ration.put("key", [1.0])
    with pytest.raises(RateLimited):
        ration.check("key")
    ration.put("other", [1.0, 599.0])
    with pytest.raises(RateLimited):
        ration.check("other")
    now_s[0] += 2  # the older of them is out of the window: so it is not waited for
    ration.check("other")
