"""The configuration files, parsed once into frozen values."""

from __future__ import annotations

from gpuhandoff.config.configuration import Configuration, HostSettings
from gpuhandoff.config.files import ConfigurationError, load

__all__ = ["Configuration", "ConfigurationError", "HostSettings", "load"]
