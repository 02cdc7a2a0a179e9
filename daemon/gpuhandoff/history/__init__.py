"""What was done with the GPUs, across reboots: moves as values, their lines in a file, and what the lines tell together."""
