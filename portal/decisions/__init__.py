"""Decisions of two persons: one asks, another one approves or refuses (S-50)."""
