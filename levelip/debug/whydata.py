"""Stories and findings of `why`, and paths, as plain data, for JSON and for the web view."""

from __future__ import annotations

from typing import Any

from levelip.debug.collection import Collection
from levelip.debug.findings import Finding
from levelip.debug.journeys import Path, journey, journey_data, journeys_of, paths, percentile
from levelip.debug.traces import frame_ids
from levelip.debug.why import Story


def finding_data(finding: Finding) -> dict[str, Any]:
    """What is wrong, why it is said, the rule, and what to do."""
    fact = finding.packet
    return {
        "finding": finding.name,
        "title": finding.kind.title,
        "says": finding.says,
        "certain": finding.certain,
        "first_wrong": {"frame": fact.name, "seam": fact.seam, "text": fact.text()} if fact is not None else None,
        "mono_ns": finding.at,
        "because": finding.because,
        "rule": finding.rule,
        "advice": finding.advice,
    }


def story_data(story: Story) -> dict[str, Any]:
    """What `why` has to tell."""
    return {
        "subject": story.subject,
        "story": story.sentences,
        "findings": [finding_data(one) for one in story.findings],
        "consequences": [finding_data(one) for one in story.consequences],
    }


def with_journey(collection: Collection, story: Story) -> dict[str, Any]:
    """The same, and of a frame that was recorded its journey; times count from the first record of it."""
    data = story_data(story)
    id_ = frame_ids(story.subject)
    if id_ is not None and id_ in collection.by_id:
        one = journey(collection, id_)
        data["journey"] = {**journey_data(one), "start_ns": one.start.mono, "name": one.first.name}
    return data


SHARES = (0.5, 0.9, 0.99)
"""Of which the percentiles are told."""


def path_data(group: Path) -> dict[str, Any]:
    """One way that packets took, with the times that it took them."""
    return {
        "what": group.what,
        "path": group.path,
        "outcome": group.outcome,
        "count": group.count,
        **_percentiles(group.took),
        "parts": {name: _percentiles(times) for name, times in group.parts.items()},
        "example": group.example.first.name if group.example is not None else None,
    }


def paths_data(collection: Collection) -> list[dict[str, Any]]:
    """All ways that the packets of a collection took, the most frequent first."""
    return [path_data(group) for group in paths(journeys_of(collection))]


def _percentiles(times: list[int]) -> dict[str, int]:
    return {f"p{round(share * 100)}_ns": percentile(times, share) for share in SHARES}
