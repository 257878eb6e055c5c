"""Is it really working inside the guest? See `ladder`."""

from .ladder import AGENT_PATIENCE, Outcome, Rung, climb, is_running

__all__ = ["AGENT_PATIENCE", "Outcome", "Rung", "climb", "is_running"]
