/**
 * What a person can allow where the service refuses without it.
 *
 * The service names the option in its sentence; only those that a click may give are offered.
 */
import {_, fill} from './translation.js';

const OPTION = /\s*with the option ([a-z-]+)(?:=([a-z]+))?/;

/**
 * @param {object} card - a card
 * @param {string} direction - handoff or reclaim
 * @returns {object} the options to ask with at first
 */
export function firstOptions(card, direction) {
    // Asking what it would cost ends nothing yet, and without it there is no plan to show.
    return direction === 'handoff' && card.drivesDisplay ? {'stop-display': true} : {};
}

/**
 * What is known to stand in the way without asking: that a guest still runs.
 *
 * @param {object} card - a card
 * @param {string} direction - handoff or reclaim
 * @param {object} options - given so far
 * @returns {?object} title, text, remedy, and the consent that would help; null for nothing
 */
export function obstacle(card, direction, options) {
    if (direction !== 'reclaim' || card.state !== 'guest' || options.holders === 'terminate')
        return null;
    return {
        title: _('A virtual machine still runs on it'),
        text: card.owner ? fill(_('{owner} has the card open.'), card) : '',
        remedy: _('Shut that machine down first. Ending it is like pulling its plug.'),
        consent: {option: 'holders', value: 'terminate', label: _('End the Machine…')},
    };
}

/**
 * @param {object} problem - name and message of an error
 * @param {string} direction - handoff or reclaim
 * @returns {?object} the option and value that would be given, and what the button says; null where nothing helps
 */
export function consentFor(problem, direction) {
    const found = OPTION.exec(problem.message);
    if (!found)
        return null;
    switch (found[1]) {
    case 'stop-display':
        return {option: 'stop-display', value: true, label: _('End the Desktop…')};
    case 'accept-risk':
        return {option: 'accept-risk', value: true, label: _('Accept the Risk')};
    case 'holders':
        return {
            option: 'holders',
            value: 'terminate',
            label: direction === 'reclaim' ? _('End the Machine…') : _('End Them…'),
        };
    default:
        return null;
    }
}

/**
 * @param {string} message - a sentence of the service
 * @returns {string} the same where a button stands for the option
 */
export function withoutOption(message) {
    return message.replace(OPTION, '');
}
