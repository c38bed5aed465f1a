"""MQTT's topic filters."""

from __future__ import annotations


def matches(topic_filter: str, topic: str) -> bool:
    """`+` stands for one level, `#` at the end for any number."""
    wanted, given = topic_filter.split("/"), topic.split("/")
    for position, level in enumerate(wanted):
        if level == "#":
            return True
        if position >= len(given) or level not in ("+", given[position]):
            return False
    return len(wanted) == len(given)
