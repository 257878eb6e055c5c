"""Is it really working inside the guest? See `ladder`."""

from .ladder import AGENT_PATIENCE, Outcome, Rung, climb

__all__ = ["AGENT_PATIENCE", "Outcome", "Rung", "climb"]
