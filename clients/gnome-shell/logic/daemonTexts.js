/**
 * What the service says in English and without parameters, listed so that the catalogue has it.
 *
 * A sentence of the service that is not here is shown as it comes.
 */
import {_, N_} from './translation.js';

export const KNOWN = [
    N_('unsaved documents: programs are ended, some without asking'),
    N_('the clipboard; Plasma 6.3 and later keeps its history'),
    N_('Bluetooth audio: it is let go of with the session, and has to be connected again'),
    N_('what was started from the desktop in the background (tmux, nohup), unless its user lingers'),
    N_('the card may not come back before a reboot: nothing is known about it'),
    N_('the card may not come back before a reboot: some did not'),
    N_('the card may not come back before a reboot, or serve one guest only'),
    N_('the card is not expected to come back before a reboot'),
    N_('no suspend until the GPU is back'),
    N_('text consoles'),
    N_('the login screen'),
    N_('the host is slower'),
    N_('file caches'),
    N_('handed over by somebody else'),
    N_('bound to vfio-pci by somebody else'),
    N_('no driver is bound'),
    N_('The journal of its handoff cannot be read and was set aside. Reclaim gives the card back to its driver; services, CPUs and memory that were changed for the guest come back with a reboot.'),
];

/**
 * @param {string} text - a sentence of the service
 * @returns {string} in the person's language where it is known
 */
export function said(text) {
    return _(text);
}
