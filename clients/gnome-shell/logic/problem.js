/**
 * Errors as sentences: what happened, and what to do.
 */
import {withoutOption} from './consent.js';
import {_, N_} from './translation.js';

const OURS = 'org.gpuhandoff.Error.';
const BUS = 'org.freedesktop.DBus.Error.';

/** What happened, and what to do, by the error's name. */
const KNOWN = {
    [`${OURS}NotFound`]: [N_('The card is not there'), N_('Look whether it is switched on in the firmware, and seated.')],
    [`${OURS}Ambiguous`]: [N_('It is not clear which card'), N_('Choose one of the cards.')],
    [`${OURS}Busy`]: [N_('The card is on the move already'), N_('Wait for the end of that, or cancel it.')],
    [`${OURS}InUse`]: [N_('The card is in use'), N_('Close what is named, then try again.')],
    [`${OURS}Inhibited`]: [N_('A program keeps the card'), N_('Wait until it has finished, then try again.')],
    [`${OURS}NotIsolated`]: [N_('The card cannot be separated'), N_('“gpuhandoff doctor” in a terminal says what to change on this machine.')],
    [`${OURS}NeedsConsent`]: [N_('This needs your consent'), N_('Read what it costs before you allow it.')],
    [`${OURS}Unsupported`]: [N_('This machine cannot do that'), N_('“gpuhandoff doctor” in a terminal says what stands in the way.')],
    [`${OURS}WrongState`]: [N_('That does not fit where the card is'), N_('Look at the card’s state, then try again.')],
    [`${OURS}TimedOut`]: [N_('It took too long'), N_('“gpuhandoff history -v” in a terminal shows which step was slow. Try again.')],
    [`${OURS}Cancelled`]: [N_('Cancelled'), N_('Everything is as it was before.')],
    [`${OURS}RolledBack`]: [N_('It did not work, and everything was undone'), N_('Everything is as it was before. When the cause is gone, try again.')],
    [`${OURS}Stuck`]: [N_('The card is stuck'), N_('When the cause is gone, take the card back.')],
    [`${BUS}AccessDenied`]: [N_('You may not do that'), N_('Try again and give the password, or ask whoever administers this machine.')],
    [`${BUS}InteractiveAuthorizationRequired`]: [N_('A password is needed'), N_('Log in to this desktop again, so that it can ask for the password.')],
    [`${BUS}LimitsExceeded`]: [N_('Too many requests wait'), N_('Wait a moment, then try again.')],
    [`${BUS}NoReply`]: [N_('The service does not answer'), N_('It may still be at work: the card’s state shows it.')],
    [`${BUS}Timeout`]: [N_('The service does not answer'), N_('It may still be at work: the card’s state shows it.')],
    [`${BUS}ServiceUnknown`]: [N_('The service is not running'), N_('“systemctl status gpuhandoffd” in a terminal says why.')],
    [`${BUS}NameHasNoOwner`]: [N_('The service is not running'), N_('“systemctl status gpuhandoffd” in a terminal says why.')],
    [`${BUS}Spawn.ChildExited`]: [N_('The service does not start'), N_('“systemctl status gpuhandoffd” in a terminal says why.')],
    [`${BUS}Disconnected`]: [N_('The system bus is gone'), N_('Log in again. If that does not help, restart the computer.')],
};

const UNKNOWN = [N_('It did not work'), N_('“gpuhandoff history” in a terminal has the details.')];

/**
 * @param {object} problem - name and message of an error; final: whether the message says all that there is to do
 * @returns {object} title, text (the service's own sentence), remedy
 */
export function problemWords(problem) {
    const [title, remedy] = KNOWN[problem.name] ?? UNKNOWN;
    return {title: _(title), text: withoutOption(problem.message), remedy: problem.final ? '' : _(remedy)};
}

/**
 * @param {?object} problem - the latest that a card's moves met, or null for none
 * @returns {?object} what is to be said of it beside the card, or null: that the card is stuck says the card's own reason
 */
export function besideCard(problem) {
    return problem && problem.name !== `${OURS}Stuck` ? problemWords(problem) : null;
}

/**
 * How a job ended that did not do what it was to.
 *
 * @param {object} job - properties of org.gpuhandoff.Job, unpacked
 * @returns {?object} an error as above has it, or null when all went well
 */
export function outcomeOf(job) {
    if (!job.Result || job.Result === 'done')
        return null;
    // What the cause was says its sentence; that everything was undone matters more to a person than its kind.
    const name = job.Result === 'rolled-back' ? `${OURS}RolledBack` : job.ErrorName || `${OURS}Failed`;
    return {name, message: job.ErrorMessage ?? ''};
}
