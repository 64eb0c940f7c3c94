"""AG-UI events: the vocabulary, the legal order, and what a list of events amounts to."""

from towpath.events.types import golden_name

__all__ = ["golden_name"]
