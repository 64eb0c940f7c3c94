"""AG-UI events: their types, their legal order, and the state that they produce."""

from towpath.events.types import golden_name

__all__ = ["golden_name"]
