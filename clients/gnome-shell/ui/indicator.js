/**
 * Puts the pieces together: the service, the toggle, the sign in the panel, dialogs and notifications.
 */
import Gio from 'gi://Gio';
import GObject from 'gi://GObject';
import * as QuickSettings from 'resource:///org/gnome/shell/ui/quickSettings.js';

import {Daemon} from '../bus/daemon.js';
import {isCancelled, problemOf} from '../bus/promises.js';
import {glance, isAway, nameOf} from '../logic/card.js';
import {CardsToggle} from './toggle.js';
import {Messages} from './messages.js';
import {PlanDialog} from './planDialog.js';

export const Indicator = GObject.registerClass(
class GpuHandoffIndicator extends QuickSettings.SystemIndicator {
    constructor(extension) {
        super();
        this._folder = `${extension.path}/icons`;
        this._sign = this._addIndicator();
        this._sign.visible = false;
        this._dialog = null;
        this._messages = new Messages(name => this._icon(name));
        this._daemon = new Daemon(Gio.DBus.system, {
            changed: () => this._sync(),
            ended: (card, operation, problem) => this._onEnded(card, operation, problem),
        });
        this.toggle = new CardsToggle({
            icon: name => this._icon(name),
            holders: (address, cancellable) => this._daemon.holders(address, cancellable),
            plan: (card, direction) => this._openPlan(card, direction),
            cancel: card => this._cancel(card),
            wake: () => this._wake(),
            dismiss: card => this._tracked(card)?.setProblem(null),
        });
        this.toggle.menu.connect('open-state-changed', (_menu, open) => {
            if (open)
                this._messages.clear();
        });
        this.quickSettingsItems.push(this.toggle);
        // Cards whose moves this person began here, by address, as they were called then: of others' they are told elsewhere.
        this._begun = new Map();
        this.connect('destroy', () => this._onDestroy());
        this._sync();
        this._daemon.start().catch(error => {
            if (!isCancelled(error))
                console.warn(`gpuhandoff: the system bus cannot be followed: ${error.message}`);
        });
    }

    _onDestroy() {
        this._daemon.stop();
        this._dialog?.destroy();
        this._messages.clear();
        for (const item of this.quickSettingsItems)
            item.destroy();
        this.quickSettingsItems = [];
    }

    _icon(name) {
        return Gio.icon_new_for_string(`${this._folder}/${name}.svg`);
    }

    _tracked(card) {
        return this._daemon.tracked.find(one => one.address === card.address);
    }

    _sync() {
        const {running, cards} = this._daemon;
        const seen = glance(running, cards);
        // A sign in the panel only while something is out of the ordinary, as the shell's own have it.
        this._sign.visible = cards.some(isAway);
        this._sign.gicon = this._icon(seen.icon);
        this._sign.accessible_name = seen.spoken;
        this.toggle.show_(seen, running, this._daemon.tracked);
        this._dialog?.follow(cards);
    }

    _openPlan(card, direction) {
        this._dialog?.destroy();
        const {cards} = this._daemon;
        const dialog = new PlanDialog(card, cards, direction, {
            preview: (options, cancellable) => this._daemon.preview(card.address, direction, options, cancellable),
            move: options => {
                this._begun.set(card.address, nameOf(card, cards));
                this._attempt(card, this._daemon.move(card.address, direction, options));
            },
        });
        dialog.connect('destroy', () => {
            if (this._dialog === dialog)
                this._dialog = null;
        });
        this._dialog = dialog;
        // Something else has the keyboard, such as another dialog.
        if (!dialog.open())
            dialog.destroy();
    }

    // Shows what a request met, on its card and to a person who looks elsewhere.
    async _attempt(card, request) {
        try {
            await request;
        } catch (error) {
            if (isCancelled(error))
                return;
            const problem = problemOf(error);
            this._tracked(card)?.setProblem(problem);
            this._tell(card, 'refused', problem);
        }
    }

    async _cancel(card) {
        try {
            await this._daemon.cancel(card.job);
        } catch (error) {
            // Whether somebody may cancel is no matter of passwords: the message says whose job it is.
            if (!isCancelled(error))
                this._tracked(card)?.setProblem({...problemOf(error), final: true});
        }
    }

    async _wake() {
        try {
            await this._daemon.wake();
        } catch (error) {
            if (!isCancelled(error))
                this.toggle.showAbsence(problemOf(error));
        }
    }

    _onEnded(card, operation, problem) {
        this._tell(card, operation, problem);
    }

    _tell(card, operation, problem) {
        const name = this._begun.get(card.address);
        if (this._begun.delete(card.address) && !this.toggle.menu.isOpen)
            this._messages.show(name, operation, problem);
    }
});
