/**
 * What a person sees of one graphics card. Pure: values in, values and sentences out.
 */
import {_, fill} from './translation.js';

/** The states in which a job is at work. */
const MOVING = ['handing-off', 'reclaiming'];

/** From the state that wants a person's eye most to the one that wants it least. */
const URGENCY = ['stuck', 'handing-off', 'reclaiming', 'foreign', 'guest', 'detached', 'host'];

const ICONS = {
    'host': 'gpuhandoff-host-symbolic',
    'handing-off': 'gpuhandoff-moving-symbolic',
    'reclaiming': 'gpuhandoff-moving-symbolic',
    'detached': 'gpuhandoff-lent-symbolic',
    'guest': 'gpuhandoff-lent-symbolic',
    'foreign': 'gpuhandoff-trouble-symbolic',
    'stuck': 'gpuhandoff-trouble-symbolic',
};

/**
 * @param {object} properties - of org.gpuhandoff.Gpu, unpacked; one that is missing counts as empty
 * @returns {object} a card
 */
export function cardOf(properties) {
    const text = name => properties[name] ?? '';
    return Object.freeze({
        address: text('Address'),
        name: text('Name'),
        state: text('State'),
        reason: text('Reason'),
        driver: text('Driver'),
        vm: text('Vm'),
        owner: text('Owner'),
        job: properties.Job ?? '/',
        drivesDisplay: properties.DrivesDisplay ?? false,
        integrated: properties.Integrated ?? false,
        asleep: properties.Asleep ?? false,
        verdict: Object.freeze({
            kind: text('ResetVerdict'),
            reason: text('ResetReason'),
            source: text('ResetSource'),
            risk: properties.ResetRisk ?? false,
            needed: properties.Needed ?? true,
        }),
    });
}

/**
 * @param {string} name - as the list of PCI ids has it: "NVIDIA AD104 [GeForce RTX 4070]"
 * @returns {string} as people say it: "GeForce RTX 4070"
 */
export function shortName(name) {
    const bracketed = /\[([^\]]+)\]/.exec(name);
    return bracketed ? bracketed[1] : name;
}

/**
 * @param {object} card - a card
 * @param {object[]} cards - all of the machine
 * @returns {string} what to call it, so that no other is meant
 */
export function nameOf(card, cards) {
    const name = shortName(card.name);
    if (!name)
        return card.address;
    const hasTwin = cards.some(one => one.address !== card.address && shortName(one.name) === name);
    return hasTwin ? `${name} (${card.address.replace(/^0000:/, '')})` : name;
}

/**
 * @param {object} card - a card
 * @returns {boolean} whether a job is at work on it
 */
export function isMoving(card) {
    return MOVING.includes(card.state);
}

/**
 * @param {object} card - a card
 * @returns {boolean} whether it is not simply with the host
 */
export function isAway(card) {
    return card.state !== 'host';
}

/**
 * @param {object} card - a card
 * @returns {string} where it is, in a few words
 */
export function whereIs(card) {
    switch (card.state) {
    case 'host':
        return _('With this computer');
    case 'handing-off':
        return card.vm ? fill(_('Going to “{vm}”'), card) : _('Going to a virtual machine');
    case 'detached':
        return card.vm ? fill(_('Ready for “{vm}”'), card) : _('Ready for a virtual machine');
    case 'guest':
        return card.vm ? fill(_('With “{vm}”'), card) : _('With a virtual machine');
    case 'reclaiming':
        return _('Coming back');
    case 'foreign':
        // After a handoff its own driver is no sign that everything is in order.
        return card.driver ? _('Moved by somebody else') : _('Without its driver');
    case 'stuck':
        return _('Stuck');
    default:
        return card.state;
    }
}

/**
 * @param {object} card - a card
 * @returns {string} where it is, in a word or two: a toggle has little room
 */
export function whereInShort(card) {
    switch (card.state) {
    case 'host':
        return _('Here');
    case 'handing-off':
        return _('Going');
    case 'detached':
        return _('Ready');
    case 'guest':
        return card.vm ? fill(_('With “{vm}”'), card) : _('Lent');
    case 'foreign':
        return card.driver ? _('Moved') : _('No driver');
    default:
        return whereIs(card);
    }
}

/**
 * @param {object} card - a card
 * @returns {string} the icon's name
 */
export function iconOf(card) {
    return ICONS[card.state] ?? 'gpuhandoff-trouble-symbolic';
}

/**
 * @param {object} card - a card
 * @returns {string} its driver, and who has it, in a line
 */
export function detailsOf(card) {
    const parts = [card.driver ? fill(_('Driver {driver}'), card) : _('No driver')];
    if (card.asleep)
        parts.push(_('asleep'));
    if (card.owner)
        parts.push(card.owner);
    return parts.join(' · ');
}

/**
 * @param {object} card - a card
 * @param {boolean} alone - whether the machine has no other
 * @returns {object} which actions it offers now: handoff, reclaim, cancel
 */
export function actionsOf(card, alone = false) {
    return {
        // Beside a card of its own, nobody lends the processor's graphics: the desktop stays on them.
        handoff: card.state === 'host' && (alone || !card.integrated),
        reclaim: ['detached', 'guest', 'foreign', 'stuck'].includes(card.state),
        cancel: card.state === 'handing-off' && card.job !== '/',
    };
}

/**
 * The one card that stands for all where there is room for one.
 *
 * @param {object[]} cards - all
 * @returns {?object} a card, or null where there is none
 */
export function foremost(cards) {
    const rank = card => URGENCY.indexOf(card.state) * 2 + Number(card.integrated);
    return cards.reduce((best, card) => best && rank(best) <= rank(card) ? best : card, null);
}

/**
 * What the toggle says.
 *
 * @param {boolean} running - whether the service is there
 * @param {object[]} cards - all cards
 * @returns {object} subtitle, icon, checked, and a name for screen readers
 */
export function glance(running, cards) {
    if (!running) {
        const subtitle = _('Not running');
        return {subtitle, icon: 'gpuhandoff-absent-symbolic', checked: false, spoken: fill(_('GPU: {subtitle}'), {subtitle})};
    }
    const card = foremost(cards);
    if (!card) {
        const subtitle = _('No card');
        return {subtitle, icon: 'gpuhandoff-absent-symbolic', checked: false, spoken: fill(_('GPU: {subtitle}'), {subtitle})};
    }
    const spoken = cards.map(one => `${nameOf(one, cards)}: ${whereIs(one)}`).join('; ');
    return {subtitle: whereInShort(card), icon: iconOf(card), checked: cards.some(isAway), spoken};
}
