"""Frozen values that travel between the rooms. No room's behaviour lives here."""
