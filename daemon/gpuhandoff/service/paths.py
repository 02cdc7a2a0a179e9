"""Object paths of GPUs and jobs."""

from __future__ import annotations

from gpuhandoff.model.address import PciAddress
from gpuhandoff.names import GPU_PATH_PREFIX


def gpu_path(address: PciAddress) -> str:
    """Return the object path of a GPU: `/org/gpuhandoff/gpus/pci_0000_01_00_0`."""
    return GPU_PATH_PREFIX + str(address).replace(":", "_").replace(".", "_")
