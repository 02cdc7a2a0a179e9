/**
 * Whether a card comes back from a guest, in a line.
 */
import {_, N_, fill} from './translation.js';

const KINDS = {
    'safe': N_('Comes back from a virtual machine'),
    'unknown': N_('Not known whether it comes back from a virtual machine'),
    'caution': N_('May not come back from a virtual machine'),
    'needs vendor-reset': N_('Comes back only with the module vendor-reset'),
    'once per boot': N_('Serves one virtual machine, then a restart is needed'),
    'broken': N_('Does not come back before a restart'),
};

/** What the service says where nobody has reported the card. */
const NO_SOURCE = 'none found';

/** Those that need no warning. */
const CALM = ['safe', 'unknown'];

/**
 * @param {object} verdict - kind, reason, source, risk, needed
 * @returns {?object} a line, the reason for it, and whether it is a warning; null where there is no verdict
 */
export function verdictWords(verdict) {
    if (!verdict.kind)
        return null;
    const line = KINDS[verdict.kind] ? _(KINDS[verdict.kind]) : verdict.kind;
    const because = verdict.source && verdict.source !== NO_SOURCE ? fill(_('{reason} (says {source})'), verdict) : verdict.reason;
    // A card that the desktop can do without is no loss that anybody has to be warned of.
    const warning = verdict.risk || (verdict.needed && !CALM.includes(verdict.kind));
    return {line, because, warning};
}
