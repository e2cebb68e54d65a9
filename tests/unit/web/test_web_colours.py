"""The colours of the page: what is written can be read, light and dark (WCAG 2.2, 1.4.3: 4.5 to 1)."""

from __future__ import annotations

import re

import pytest

from levelip.web.app import static_directory

CONTRAST = 4.5
TEXTS = ("text", "quiet", "accent", "good", "warn", "bad", "data", "ack", "payload", "sack", "up", "down")
GROUNDS = ("panel", "back", "raised", "chosen")
_COLOUR = re.compile(r"--(\w+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);")


def luminance(colour: str) -> float:
    """WCAG's relative luminance of "#rrggbb"."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_texts_stand_out(theme: int) -> None:
    """On every ground that they are written on, chosen rows among them."""
    found = {name: colours[theme] for name, *colours in _COLOUR.findall((static_directory() / "app.css").read_text())}
    for text in TEXTS:
        for ground in GROUNDS:
            darker, lighter = sorted((luminance(found[text]), luminance(found[ground])))
            assert (lighter + 0.05) / (darker + 0.05) >= CONTRAST, (text, ground)
