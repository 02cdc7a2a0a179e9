/** Names of the service on the bus. */
export const BUS_NAME = 'org.gpuhandoff.Manager';
export const MANAGER_PATH = '/org/gpuhandoff/Manager';
export const MANAGER = 'org.gpuhandoff.Manager';
export const GPU = 'org.gpuhandoff.Gpu';
export const JOB = 'org.gpuhandoff.Job';
export const NO_JOB = '/';

/**
 * @param {string} address - a PCI address
 * @returns {string} the path of that card's object
 */
export function gpuPath(address) {
    return `/org/gpuhandoff/gpus/pci_${address.replace(/[:.]/g, '_')}`;
}
