"""What the web view asks is waited for, and what it looks through it sees whole, however busy the machine is."""

from __future__ import annotations

import pytest

from levelip.web.views import View


@pytest.fixture(autouse=True)
def _patient(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a layer that has not had its turn is taken for a silent one, and a view is opened with some of its rows:
    those that could be looked at in 4 ms."""
    monkeypatch.setattr(View.scan, "__defaults__", (60.0,))
