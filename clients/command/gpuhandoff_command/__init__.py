"""The command gpuhandoff: a client of the bus API and nothing else."""
