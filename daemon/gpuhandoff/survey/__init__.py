"""Reads the machine into one frozen World."""
