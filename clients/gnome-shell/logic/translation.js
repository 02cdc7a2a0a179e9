/**
 * The catalogue of this extension. The shell binds it to a folder when it loads the extension, the tests to theirs.
 */
import Gettext from 'gettext';

export const DOMAIN = 'gpuhandoff-gnome-shell';

const catalogue = Gettext.domain(DOMAIN);

/**
 * @param {string} text - in English
 * @returns {string} the text in the person's language
 */
export function _(text) {
    // The empty text is the catalogue's head.
    return text ? catalogue.gettext(text) : '';
}

/**
 * @param {string} one - for a count of 1
 * @param {string} many - for other counts
 * @param {number} count - how many
 * @returns {string} the one that fits, in the person's language
 */
export function ngettext(one, many, count) {
    return catalogue.ngettext(one, many, count);
}

/**
 * Marks a text for the catalogue that is translated where it is shown.
 *
 * @param {string} text - in English
 * @returns {string} the same
 */
export function N_(text) {
    return text;
}

/**
 * Fill a sentence, so that a translation may turn the order around.
 *
 * @param {string} sentence - with {names} in it
 * @param {object} values - by name
 * @returns {string} the sentence with the values
 */
export function fill(sentence, values) {
    return sentence.replace(/\{(\w+)\}/g, (all, name) => String(values[name] ?? all));
}

/**
 * @param {string} text - a phrase
 * @returns {string} the same as a line of its own
 */
export function capital(text) {
    return text.charAt(0).toLocaleUpperCase() + text.slice(1);
}
