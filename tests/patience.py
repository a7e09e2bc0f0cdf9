"""How long tests wait for what has to happen."""

from __future__ import annotations

PATIENCE = 180.0
"""Seconds for any one step, on a machine that has much else to do."""
