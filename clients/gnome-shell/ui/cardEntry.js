/**
 * One card in the menu: what it is, where it is, what can be done.
 */
import * as PopupMenu from 'resource:///org/gnome/shell/ui/popupMenu.js';

import {actionsOf, nameOf} from '../logic/card.js';
import {besideCard} from '../logic/problem.js';
import {_, fill} from '../logic/translation.js';
import {CardItem} from './cardItem.js';

export class CardEntry {
    /**
     * @param {PopupMenu.PopupMenuBase} menu - to be in
     * @param {object} acts - what the person can do, see Indicator
     */
    constructor(menu, acts) {
        this._card = null;
        this._separator = new PopupMenu.PopupSeparatorMenuItem();
        this._item = new CardItem(acts.icon);
        this._actions = {
            handoff: this._action(_('Hand Over…'), () => acts.plan(this._card, 'handoff')),
            reclaim: this._action(_('Take Back…'), () => acts.plan(this._card, 'reclaim')),
            cancel: this._action(_('Cancel the Handoff'), () => acts.cancel(this._card)),
            dismiss: this._action(_('Dismiss the Message'), () => acts.dismiss(this._card)),
        };
        // Items straight into the menu: in a section of their own, GNOME 48 never lets go of them.
        for (const item of [this._separator, this._item, ...Object.values(this._actions)])
            menu.addMenuItem(item);
    }

    /**
     * @param {object} tracked - the card, its progress and its problem
     * @param {object[]} cards - all of the machine
     */
    show(tracked, cards) {
        this._card = tracked.card;
        const name = nameOf(tracked.card, cards);
        const offered = {...actionsOf(tracked.card, cards.length === 1), dismiss: besideCard(tracked.problem) !== null};
        this._item.show_(tracked, name, offered.handoff);
        for (const [action, item] of Object.entries(this._actions)) {
            item.visible = Boolean(offered[action]);
            // Two cards have the same actions: whoever does not see them beside the name has to be told of which.
            item.accessible_name = fill(_('{action} {name}'), {action: item.label.text, name});
        }
    }

    /**
     * @param {?object} holders - a heading and lines, or null for nothing to show
     */
    showHolders(holders) {
        this._item.showHolders(holders);
    }

    destroy() {
        for (const item of [this._separator, this._item, ...Object.values(this._actions)])
            item.destroy();
    }

    _action(label, act) {
        const item = new PopupMenu.PopupMenuItem(label);
        item.connect('activate', act);
        return item;
    }
}
