"""What people type into the forms of rules."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError

from alerts.forms import SpanField


@pytest.mark.parametrize("text", ["9" * 30 + " d", "9" * 400, "99999999999 d"])
def test_a_span_beyond_all_time_is_refused(text):
    with pytest.raises(ValidationError):
        SpanField().clean(text)
