"""A support report: what it says, which lines of logs matter, and what it does not name. Pure; `service` gathers."""
