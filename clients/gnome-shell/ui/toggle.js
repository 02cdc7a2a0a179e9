/**
 * The toggle in the quick settings, and its menu with an entry for each card.
 *
 * A click opens the menu and does nothing else: what a handoff costs is too much for a click.
 */
import Gio from 'gi://Gio';
import GObject from 'gi://GObject';
import * as PopupMenu from 'resource:///org/gnome/shell/ui/popupMenu.js';
import * as QuickSettings from 'resource:///org/gnome/shell/ui/quickSettings.js';

import {isCancelled, problemOf} from '../bus/promises.js';
import {holdersOf} from '../logic/holder.js';
import {problemWords} from '../logic/problem.js';
import {_} from '../logic/translation.js';
import {CardEntry} from './cardEntry.js';
import {NoteItem} from './noteItem.js';

export const CardsToggle = GObject.registerClass(
class GpuHandoffToggle extends QuickSettings.QuickMenuToggle {
    /**
     * @param {object} acts - what the person can do, see Indicator
     */
    constructor(acts) {
        super({title: _('GPU'), toggleMode: false});
        this._acts = acts;
        this._tracked = [];
        this._entries = new Map();
        this._looking = null;
        // Why the service could not be started, where somebody has tried.
        this._absence = null;
        if ('menuButtonAccessibleName' in this)
            this.menuButtonAccessibleName = _('Open the menu of the graphics cards');
        this._note = new NoteItem();
        this.menu.addMenuItem(this._note);
        this._start = new PopupMenu.PopupMenuItem(_('Start the Service'));
        this._start.connect('activate', () => this._acts.wake());
        this.menu.addMenuItem(this._start);
        this.connect('clicked', () => this.menu.open(true));
        this.menu.connect('open-state-changed', (_menu, open) => this._onOpen(open));
        this.connect('destroy', () => this._onDestroy());
    }

    /**
     * @param {object} seen - what is to be seen at a glance
     * @param {boolean} running - whether the service is there
     * @param {object[]} tracked - the cards
     */
    show_(seen, running, tracked) {
        const icon = this._acts.icon(seen.icon);
        this._tracked = tracked;
        this.set({subtitle: seen.subtitle, gicon: icon, checked: seen.checked, accessible_name: seen.spoken});
        // What has the focus is the part without the arrow; its own name would leave out where the cards are.
        this.child.get_first_child().accessible_name = seen.spoken;
        this.menu.setHeader(icon, _('Graphics Cards'), seen.subtitle);
        this._showEntries();
        if (running) {
            this._absence = null;
            this._showNote(tracked.length ? null : {title: _('This machine has no graphics card'), text: '', remedy: ''});
        } else {
            this.showAbsence(this._absence);
        }
        this._start.visible = !running;
        if (this.menu.isOpen)
            this._lookForHolders();
    }

    /**
     * @param {?object} problem - why the service could not be started, or null where nobody has tried
     */
    showAbsence(problem) {
        this._absence = problem;
        if (problem) {
            this._showNote(problemWords(problem));
            return;
        }
        this._showNote({
            title: _('The service is not running'),
            text: _('Cards can be handed over when gpuhandoffd runs. Until then nothing is known about them.'),
            remedy: '',
        });
    }

    _showNote(words) {
        this._note.visible = Boolean(words);
        if (words)
            this._note.show_(words);
    }

    _showEntries() {
        const addresses = this._tracked.map(one => one.address);
        // Cards come and go so seldom that the others may be made anew with them.
        if (addresses.join() !== [...this._entries.keys()].join()) {
            this._forgetEntries();
            for (const address of addresses)
                this._entries.set(address, new CardEntry(this.menu, this._acts));
        }
        const cards = this._tracked.map(one => one.card);
        for (const one of this._tracked)
            this._entries.get(one.address).show(one, cards);
    }

    _forgetEntries() {
        this._stopLooking();
        for (const entry of this._entries.values())
            entry.destroy();
        this._entries.clear();
    }

    _onOpen(open) {
        if (open)
            this._lookForHolders();
        else
            this._stopLooking();
    }

    /** Only while somebody looks, and again when a card has moved: a look walks through every process. */
    _lookForHolders() {
        const places = this._tracked.map(one => `${one.address} ${one.card.state} ${one.card.driver}`).join();
        if (this._looking?.places === places)
            return;
        this._stopLooking();
        this._looking = {places, cancellable: new Gio.Cancellable()};
        for (const one of this._tracked)
            this._lookAt(one, this._looking.cancellable);
    }

    async _lookAt(tracked, cancellable) {
        if (tracked.card.state !== 'host') {
            this._entries.get(tracked.address)?.showHolders(null);
            return;
        }
        try {
            const holders = holdersOf(await this._acts.holders(tracked.address, cancellable));
            if (cancellable.is_cancelled())
                return;
            this._entries.get(tracked.address)?.showHolders(holders);
        } catch (error) {
            if (isCancelled(error) || cancellable.is_cancelled())
                return;
            // Who may not know it sees the rest all the same.
            this._entries.get(tracked.address)?.showHolders({heading: problemWords(problemOf(error)).title, lines: []});
        }
    }

    _stopLooking() {
        this._looking?.cancellable.cancel();
        this._looking = null;
    }

    _onDestroy() {
        this._forgetEntries();
        // The shell leaves a toggle's menu where it is when the toggle goes.
        this.menu.destroy();
    }
});
