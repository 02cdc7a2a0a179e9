"""Lends GPUs to virtual machines and takes them back."""

__version__ = "0.1.0"
