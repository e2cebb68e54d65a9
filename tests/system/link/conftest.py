"""Fixtures of the device ports' tests; see link_bench."""

from __future__ import annotations

from link_bench import bench, netns

__all__ = ["bench", "netns"]
