"""gpuhandoff-session: a desktop is warned before a handoff ends it, ends by itself, and learns how it went."""
