/**
 * What a move would cost, before it is begun. Nothing has happened until the last button is pressed.
 */
import Clutter from 'gi://Clutter';
import Gio from 'gi://Gio';
import GObject from 'gi://GObject';
import St from 'gi://St';
import {ensureActorVisibleInScrollView} from 'resource:///org/gnome/shell/misc/animationUtils.js';
import * as ModalDialog from 'resource:///org/gnome/shell/ui/modalDialog.js';

import {isCancelled, problemOf} from '../bus/promises.js';
import {nameOf} from '../logic/card.js';
import {consentFor, firstOptions, obstacle} from '../logic/consent.js';
import {planOf} from '../logic/plan.js';
import {problemWords} from '../logic/problem.js';
import {_, fill} from '../logic/translation.js';
import {column, paragraph} from './box.js';

export const PlanDialog = GObject.registerClass(
class GpuHandoffPlanDialog extends ModalDialog.ModalDialog {
    /**
     * @param {object} card - a card
     * @param {object[]} cards - all of the machine
     * @param {string} direction - handoff or reclaim
     * @param {object} acts - preview(options, cancellable), move(options)
     */
    constructor(card, cards, direction, acts) {
        super({styleClass: 'gpuhandoff-dialog', destroyOnClose: true});
        this._card = card;
        this._cards = cards;
        this._direction = direction;
        this._acts = acts;
        this._options = firstOptions(card, direction);
        this._cancellable = null;
        this._title = paragraph('', {style_class: 'gpuhandoff-dialog-title'});
        this._body = column({style_class: 'gpuhandoff-dialog-body'});
        this._scroll = new St.ScrollView({
            style_class: 'gpuhandoff-dialog-scroll',
            hscrollbar_policy: St.PolicyType.NEVER,
            x_expand: true,
            child: this._body,
        });
        this.contentLayout.add_child(this._title);
        this.contentLayout.add_child(this._scroll);
        this.connect('destroy', () => this._cancellable?.cancel());
        this._ask();
    }

    /**
     * @param {object[]} cards - as they are now: a plan for what was is none
     */
    follow(cards) {
        if (!this._isOpen())
            return;
        const now = cards.find(one => one.address === this._card.address);
        if (!now) {
            this.close();
            return;
        }
        const changed = now.state !== this._card.state || now.driver !== this._card.driver || now.drivesDisplay !== this._card.drivesDisplay;
        this._card = now;
        this._cards = cards;
        if (changed)
            this._ask();
    }

    async _ask() {
        this._cancellable?.cancel();
        const cancellable = new Gio.Cancellable();
        this._cancellable = cancellable;
        const known = obstacle(this._card, this._direction, this._options);
        if (known) {
            this._showProblem(known, known.consent);
            return;
        }
        const name = nameOf(this._card, this._cards);
        this._show(fill(this._direction === 'handoff' ? _('Hand over {name}?') : _('Take back {name}?'), {name}));
        this._add(_('Looking at the machine…'), 'gpuhandoff-dim');
        this._setButtons([]);
        try {
            const plan = planOf(await this._acts.preview(this._options, cancellable), this._cards);
            if (!cancellable.is_cancelled())
                this._showPlan(plan);
        } catch (error) {
            if (isCancelled(error) || cancellable.is_cancelled())
                return;
            const problem = problemOf(error);
            this._showProblem(problemWords(problem), consentFor(problem, this._direction));
        }
    }

    _showPlan(plan) {
        this._show(plan.title);
        this._add(plan.lead);
        if (plan.losses.length) {
            this._add(_('What it costs you:'), 'gpuhandoff-heading');
            for (const loss of plan.losses)
                this._addPoint('•', loss);
        }
        if (plan.verdict) {
            this._add(plan.verdict.line, plan.verdict.warning ? 'gpuhandoff-heading gpuhandoff-warning' : 'gpuhandoff-heading');
            this._add(plan.verdict.because, 'gpuhandoff-dim');
        }
        this._add(_('Step by step:'), 'gpuhandoff-heading');
        plan.steps.forEach((step, index) => this._addPoint(`${index + 1}.`, step.text, step.seconds));
        if (plan.note)
            this._add(plan.note, 'gpuhandoff-dim');
        this._setButtons([{
            label: plan.confirm,
            // Return must not end somebody's desktop.
            default: !plan.grave,
            action: () => {
                const options = this._options;
                this.close();
                this._acts.move(options);
            },
        }]);
    }

    _showProblem(words, consent) {
        this._show(words.title);
        this._add(words.text);
        this._add(words.remedy, 'gpuhandoff-dim');
        const allow = () => {
            this._options = {...this._options, [consent.option]: consent.value};
            this._ask();
        };
        const offered = consent ? [{label: consent.label, action: allow}] : [];
        this._setButtons([...offered, {label: _('Try Again'), action: () => this._ask()}]);
    }

    _show(title) {
        this._title.text = title;
        this._body.destroy_all_children();
    }

    _add(text, style = '') {
        if (text)
            this._addFocusable(paragraph(text, {style_class: style}), text);
    }

    _addPoint(mark, text, note = '') {
        const row = new St.BoxLayout({style_class: 'gpuhandoff-point', x_expand: true});
        row.add_child(new St.Label({text: mark, style_class: 'gpuhandoff-mark'}));
        row.add_child(paragraph(text));
        if (note)
            row.add_child(new St.Label({text: note, style_class: 'gpuhandoff-dim', y_align: Clutter.ActorAlign.CENTER}));
        this._addFocusable(row, [mark, text, note].filter(Boolean).join(' '));
    }

    // Lines can have the focus: that is how a keyboard scrolls and a screen reader reads them.
    _addFocusable(actor, text) {
        actor.set({can_focus: true, accessible_name: text});
        actor.connect('key-focus-in', () => ensureActorVisibleInScrollView(this._scroll, actor));
        this._body.add_child(actor);
    }

    _setButtons(further) {
        const dismiss = {label: further.length ? _('Cancel') : _('Close'), key: Clutter.KEY_Escape, action: () => this.close()};
        this.setButtons([dismiss, ...further]);
        // The button that had it is gone.
        if (this._isOpen())
            this.dialogLayout.initialKeyFocus.grab_key_focus();
    }

    _isOpen() {
        return [ModalDialog.State.OPENED, ModalDialog.State.OPENING].includes(this.state);
    }
});
