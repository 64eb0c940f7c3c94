"""Runs of real agent frameworks, recorded; README.md says which, and how they were made."""

from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.jsonl")))
"""What the recordings are called, and the agents that tell them again."""
