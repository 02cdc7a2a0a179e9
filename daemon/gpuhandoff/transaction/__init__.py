"""Runs the steps of a plan with a write-ahead journal, rolls back, recovers."""
