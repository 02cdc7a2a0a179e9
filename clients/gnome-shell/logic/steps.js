/**
 * The steps of a move, in words: as it is done, and as it is undone.
 */
import {_, N_, fill} from './translation.js';

const WORDS = {
    'inhibit-sleep': [N_('Keep the machine awake'), N_('Let the machine sleep again')],
    'load-vfio': [N_('Load vfio-pci'), N_('Unload vfio-pci')],
    'stop-display': [N_('End the desktop'), N_('Start the desktop')],
    'stop-gpu-services': [N_('Stop services of the card'), N_('Start services of the card')],
    'settle-holders': [N_('Wait until nobody uses the card'), N_('Let programs use the card')],
    'claim-functions': [N_('Reserve the card for the virtual machine'), N_('Give up the reservation')],
    'unbind-consoles': [N_('Detach the text consoles'), N_('Attach the text consoles')],
    'unbind-framebuffers': [N_('Detach the firmware’s picture'), N_('Attach the firmware’s picture')],
    'unload-driver': [N_('Unload the driver'), N_('Load the driver')],
    'resize-bars': [N_('Resize the memory windows'), N_('Set the memory windows back')],
    'bind-vfio': [N_('Give the card to vfio-pci'), N_('Take the card from vfio-pci')],
    'confine-host': [N_('Keep this computer on its own processors'), N_('Give this computer all processors')],
    'quiet-host': [N_('Pause what may wait'), N_('Continue what was paused')],
    'free-memory': [N_('Free memory'), N_('Leave the memory as it is')],
    'back-guest-memory': [N_('Prepare huge pages'), N_('Give huge pages back')],
    'release-functions': [N_('Give the card to its driver'), N_('Take the card from its driver')],
};

/**
 * @param {string} step - name of a step; one that is not known stays as it is
 * @param {boolean} undoing - whether it is undone
 * @returns {string} what happens
 */
export function stepWords(step, undoing = false) {
    const words = WORDS[step];
    return words ? _(words[undoing ? 1 : 0]) : step;
}

/**
 * How far a job is, by a signal.
 *
 * @param {string} step - at work
 * @param {string} phase - apply, done, undo or undone
 * @param {number} index - of the step, from 1; what is undone is counted down
 * @param {number} count - of steps
 * @returns {object} step, phase, index, count, and the fraction, which rises either way, as the service's own does
 */
export function signalled(step, phase, index, count) {
    const behind = {apply: index - 1, done: index, undo: count - index, undone: count - index + 1}[phase] ?? 0;
    return {step, phase, index, count, fraction: count ? behind / count : 0};
}

/**
 * How far a job is that was under way before anybody listened: the next signal tells the rest.
 *
 * @param {object} job - properties of org.gpuhandoff.Job, unpacked
 * @param {object} card - that it moves
 * @returns {object} the same as for a signal, without index and count
 */
export function joined(job, card) {
    // A card comes back by undoing, also when a handoff has failed; but for this step, which is all of a reclaim from somebody else.
    const undoes = card.state === 'reclaiming' && job.Step !== 'release-functions';
    return {step: job.Step, phase: undoes ? 'undo' : 'apply', index: 0, count: 0, fraction: job.Progress};
}

/**
 * How far a job is, in words.
 *
 * @param {object} progress - step, phase, index, count and fraction
 * @returns {object} fraction from 0 to 1, and a line of text
 */
export function progressOf(progress) {
    const undoing = ['undo', 'undone'].includes(progress.phase);
    const {index, count} = progress;
    const fraction = Math.min(Math.max(progress.fraction ?? 0, 0), 1);
    if (!progress.step)
        return {fraction, text: _('Starting…')};
    const does = stepWords(progress.step, undoing);
    if (!count)
        return {fraction, text: does};
    // What is undone is counted down, as it is the way back.
    return {fraction, text: fill(_('{does} ({index} of {count})'), {does, index, count})};
}

/**
 * @param {number} seconds - that something took
 * @returns {string} how a person says it
 */
export function secondsWords(seconds) {
    if (seconds < 9.95)
        return fill(_('{seconds} s'), {seconds: seconds.toFixed(1)});
    return fill(_('{seconds} s'), {seconds: Math.round(seconds)});
}
