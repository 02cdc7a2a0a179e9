"""The configuration files, parsed once into frozen values."""
