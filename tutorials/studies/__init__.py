"""Longer experiments behind the tutorials: scripts, and in `results/` what they measured."""
