/**
 * Tells how a move ended to a person who has closed the menu meanwhile.
 */
import * as MessageTray from 'resource:///org/gnome/shell/ui/messageTray.js';
import * as Main from 'resource:///org/gnome/shell/ui/main.js';

import {problemWords} from '../logic/problem.js';
import {_, fill} from '../logic/translation.js';

export class Messages {
    /**
     * @param {Function} icon - gives an icon by its name
     */
    constructor(icon) {
        this._icon = icon;
        this._source = null;
    }

    /**
     * @param {string} name - what the card is called
     * @param {string} operation - handoff, reclaim, or refused for one that was not begun
     * @param {?object} problem - name and message of an error, or null when all went well
     */
    show(name, operation, problem) {
        const words = problem && problemWords(problem);
        const title = words ? `${name}: ${words.title}`
            : fill(operation === 'handoff' ? _('{name} is ready for a virtual machine') : _('{name} is back with this computer'), {name});
        const body = words ? [words.text, words.remedy].filter(Boolean).join(' ') : '';
        const source = this._open();
        const notification = new MessageTray.Notification({
            source,
            title,
            body,
            gicon: this._icon(problem ? 'gpuhandoff-trouble-symbolic' : 'gpuhandoff-lent-symbolic'),
            urgency: problem ? MessageTray.Urgency.HIGH : MessageTray.Urgency.NORMAL,
        });
        source.addNotification(notification);
    }

    /** Take back everything that is shown: whoever opens the menu finds it at the card. */
    clear() {
        this._source?.destroy();
        this._source = null;
    }

    _open() {
        if (!this._source) {
            this._source = new MessageTray.Source({title: _('GPU'), icon: this._icon('gpuhandoff-host-symbolic')});
            this._source.connect('destroy', () => {
                this._source = null;
            });
            Main.messageTray.add(this._source);
        }
        return this._source;
    }
}
