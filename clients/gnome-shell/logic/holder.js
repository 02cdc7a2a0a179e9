/**
 * Who has a card open.
 */
import {_, capital, fill, ngettext} from './translation.js';

/** So many are named where there is little room. */
const MOST = 4;

/**
 * @param {object[]} holders - the answer of Holders, unpacked
 * @returns {object} lines to show, and a heading
 */
export function holdersOf(holders) {
    const lines = [];
    for (const holder of holders) {
        const who = capital(holder.who);
        const known = lines.find(line => line.text === who);
        // A program with many processes is one program to a person.
        if (known)
            known.pids.push(holder.pid);
        else
            lines.push({text: who, app: holder.app, pids: [holder.pid], leaves: holder.leaves});
    }
    const shown = lines.slice(0, MOST);
    const more = lines.length - shown.length;
    if (more)
        shown.push({text: fill(ngettext('and {more} more', 'and {more} more', more), {more}), app: '', pids: [], leaves: false});
    const heading = lines.length
        ? fill(ngettext('{count} program uses it', '{count} programs use it', lines.length), {count: lines.length})
        : _('No program uses it');
    return {heading, lines: shown};
}
