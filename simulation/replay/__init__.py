"""Replay: the cores of a recording run again, call by call, and what they do is held against what was recorded."""
