/**
 * A preview as a person reads it before saying yes: what they lose, how long it takes, every step.
 */
import {said} from './daemonTexts.js';
import {nameOf} from './card.js';
import {secondsWords, stepWords} from './steps.js';
import {verdictWords} from './verdict.js';
import {_, ngettext, capital, fill} from './translation.js';

/** Permissions for which polkit asks an ordinary person for a password. */
const GUARDED = ['handoff-display', 'handoff-others', 'accept-risk', 'terminate-holders', 'evict-guest']
    .map(name => `org.gpuhandoff.${name}`);

/** Steps whose cost is said with more detail than the step has. */
const DETAILED = ['stop-display', 'settle-holders'];

/**
 * @param {object} preview - the answer of Preview, unpacked
 * @param {object[]} cards - all of the machine
 * @returns {object} title, lead, losses, verdict, note, steps, confirm, grave
 */
export function planOf(preview, cards) {
    const leaving = preview.direction === 'handoff';
    const name = nameOf({name: preview.name, address: preview.gpu}, cards);
    const ends = preview.steps.some(step => step.step === 'stop-display') && leaving;
    const losses = leaving ? lossesOf(preview) : [];
    const undone = !leaving && preview.steps.every(step => step.does === 'undo it');
    return {
        title: fill(leaving ? _('Hand over {name}?') : _('Take back {name}?'), {name}),
        lead: [leadOf(preview, leaving, ends), durationOf(preview)].filter(Boolean).join(' '),
        losses,
        verdict: leaving ? verdictWords(verdictOf(preview)) : null,
        note: (preview.asks ?? []).some(action => GUARDED.includes(action)) ? _('You will be asked for a password.') : '',
        steps: preview.steps.map(step => ({
            text: stepWords(step.step, undone),
            seconds: step.seconds >= 0 ? secondsWords(step.seconds) : '',
        })),
        confirm: confirmOf(preview, leaving, ends),
        // Whether saying yes ends something that a person may miss.
        grave: ends || (preview.ended ?? []).length > 0 || Boolean(preview['reset-risk'] && leaving) ||
            (preview.asks ?? []).includes('org.gpuhandoff.evict-guest'),
    };
}

/**
 * @param {object} preview - the answer of Preview
 * @returns {object} its verdict, named as a card's is
 */
function verdictOf(preview) {
    return {
        kind: preview['reset-verdict'],
        reason: preview['reset-reason'],
        source: preview['reset-source'],
        risk: preview['reset-risk'],
        needed: preview['needed'],
    };
}

/**
 * @param {object} preview - the answer of Preview
 * @param {boolean} leaving - whether the card is handed over
 * @param {boolean} ends - whether the desktop ends
 * @returns {string} what becomes of the desktop
 */
function leadOf(preview, leaving, ends) {
    if (!leaving) {
        return (preview.asks ?? []).includes('org.gpuhandoff.evict-guest')
            ? _('The virtual machine that still runs on it is ended.')
            : _('The card goes back to its driver on this computer.');
    }
    if (!ends)
        return _('Your desktop stays.');
    const users = usersOf(preview);
    return users.length ? fill(_('The desktop of {users} ends. Save your work first.'), {users: users.join(', ')})
        : _('The login screen goes dark until the card is back.');
}

/**
 * @param {object} preview - the answer of Preview
 * @returns {string} how long it usually takes
 */
function durationOf(preview) {
    if (!(preview.seconds >= 0))
        return _('It was never done here, so nobody knows how long it takes.');
    return fill(_('It usually takes {time} here.'), {time: secondsWords(preview.seconds)});
}

/**
 * @param {object} preview - the answer of Preview
 * @returns {string[]} whose sessions end
 */
function usersOf(preview) {
    return [...new Set((preview.sessions ?? []).map(session => session.replace(/ on \S+$/, '')))];
}

/**
 * @param {object} preview - the answer of Preview
 * @returns {string[]} what is lost, the gravest first
 */
function lossesOf(preview) {
    const programs = preview.programs ?? [];
    const more = preview['more-programs'] ?? 0;
    const named = programs.join(', ');
    const lost = [];
    if (programs.length)
        lost.push(more ? fill(ngettext('These programs end: {named} and {more} more', 'These programs end: {named} and {more} more', more), {named, more}) : fill(_('These programs end: {named}'), {named}));
    for (const one of preview.ended ?? [])
        lost.push(fill(_('This program is ended: {one}'), {one}));
    for (const text of preview.lost ?? [])
        lost.push(capital(said(text)));
    for (const step of preview.steps) {
        const detailed = DETAILED.includes(step.step) && (programs.length || (preview.ended ?? []).length);
        if (step.costs && !detailed)
            lost.push(capital(said(step.costs)));
    }
    return lost;
}

/**
 * @param {object} preview - the answer of Preview
 * @param {boolean} leaving - whether the card is handed over
 * @param {boolean} ends - whether the desktop ends
 * @returns {string} what the button says
 */
function confirmOf(preview, leaving, ends) {
    if (!leaving)
        return (preview.asks ?? []).includes('org.gpuhandoff.evict-guest') ? _('End the Machine and Take Back') : _('Take Back');
    if (ends)
        return _('End Desktop and Hand Over');
    return (preview.ended ?? []).length ? _('End Programs and Hand Over') : _('Hand Over');
}
