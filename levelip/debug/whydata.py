"""Stories and findings of `why` as plain data, for JSON and for the web view."""

from __future__ import annotations

from typing import Any

from levelip.debug.collection import Collection
from levelip.debug.findings import Finding
from levelip.debug.journeys import journey, journey_data
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
