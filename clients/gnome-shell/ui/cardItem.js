/**
 * What is to be seen of a card: name, place, driver, verdict, who uses it, how far a move is, what went wrong.
 */
import GObject from 'gi://GObject';
import Shell from 'gi://Shell';
import St from 'gi://St';

import {detailsOf, iconOf, isMoving, whereIs} from '../logic/card.js';
import {said} from '../logic/daemonTexts.js';
import {besideCard} from '../logic/problem.js';
import {progressOf} from '../logic/steps.js';
import {verdictWords} from '../logic/verdict.js';
import {ProgressBar, column, paragraph, setText} from './box.js';
import {WrappingItem} from './wrappingItem.js';

export const CardItem = GObject.registerClass(
class GpuHandoffCardItem extends WrappingItem {
    /**
     * @param {Function} icon - gives an icon by its name
     */
    constructor(icon) {
        super();
        this._iconOf = icon;
        this._heading = '';
        this._lendable = true;
        this._icon = new St.Icon({style_class: 'popup-menu-icon', y_align: 1});
        this._name = paragraph('', {style_class: 'gpuhandoff-name'});
        this._where = paragraph('');
        this._step = paragraph('', {style_class: 'gpuhandoff-dim'});
        this._bar = new ProgressBar();
        this._details = paragraph('', {style_class: 'gpuhandoff-dim'});
        this._verdict = paragraph('', {style_class: 'gpuhandoff-dim'});
        this._reason = paragraph('');
        this._problem = column({style_class: 'gpuhandoff-problem'});
        this._problemTitle = paragraph('', {style_class: 'gpuhandoff-name'});
        this._problemText = paragraph('');
        this._problemRemedy = paragraph('', {style_class: 'gpuhandoff-dim'});
        for (const label of [this._problemTitle, this._problemText, this._problemRemedy])
            this._problem.add_child(label);
        this._holders = column({style_class: 'gpuhandoff-holders', visible: false});
        const box = column();
        const parts = [
            this._name, this._where, this._bar, this._step, this._reason, this._details, this._verdict, this._problem, this._holders,
        ];
        for (const part of parts)
            box.add_child(part);
        this.add_child(this._icon);
        this.add_child(box);
    }

    /**
     * @param {object} tracked - the card, its progress and its problem
     * @param {string} name - what to call it
     * @param {boolean} lendable - whether it may be handed over: of one that stays there is less to know
     */
    show_(tracked, name, lendable) {
        const {card, progress, problem} = tracked;
        const moving = isMoving(card);
        this._lendable = lendable;
        const verdict = verdictWords(card.verdict);
        const step = moving ? progressOf(progress ?? {step: ''}) : null;
        const words = besideCard(problem);
        this._icon.gicon = this._iconOf(iconOf(card));
        this._name.text = name;
        this._where.text = whereIs(card);
        setText(this._step, step?.text ?? '');
        this._bar.visible = moving;
        this._bar.fraction = step?.fraction ?? 0;
        setText(this._reason, moving ? '' : said(card.reason));
        setText(this._details, detailsOf(card));
        setText(this._verdict, lendable && verdict ? verdict.line : '');
        this._problem.visible = words !== null;
        this._problemTitle.text = words?.title ?? '';
        setText(this._problemText, words?.text ?? '');
        setText(this._problemRemedy, words?.remedy ?? '');
        this._speak();
    }

    /**
     * @param {?object} holders - a heading and lines, or null for nothing to show
     */
    showHolders(holders) {
        this._holders.destroy_all_children();
        this._holders.visible = holders !== null;
        this._heading = holders?.heading ?? '';
        if (holders) {
            this._holders.add_child(paragraph(holders.heading, {style_class: 'gpuhandoff-dim'}));
            for (const line of this._lendable ? holders.lines : [])
                this._holders.add_child(this._holder(line));
        }
        this._speak();
    }

    _holder(line) {
        const row = new St.BoxLayout({style_class: 'gpuhandoff-holder'});
        const app = appOf(line);
        const icon = app ? app.create_icon_texture(16) : new St.Icon({icon_name: 'application-x-executable-symbolic', icon_size: 16});
        row.add_child(icon);
        row.add_child(paragraph(line.text));
        return row;
    }

    /** One sentence for who cannot see the parts. */
    _speak() {
        const parts = [this._name, this._where, this._step, this._reason, this._details, this._verdict]
            .concat(this._problem.visible ? [this._problemTitle, this._problemText, this._problemRemedy] : []);
        const shown = parts.filter(label => label.visible).map(label => label.text);
        this.accessible_name = [...shown, this._heading].filter(Boolean).join('. ');
    }
});

/**
 * @param {object} line - of the holders: app and pids
 * @returns {?Shell.App} the program as the desktop knows it
 */
function appOf(line) {
    const known = line.app ? Shell.AppSystem.get_default().lookup_app(`${line.app.replace(/\.desktop$/, '')}.desktop`) : null;
    return known ?? line.pids.map(pid => Shell.WindowTracker.get_default().get_app_from_pid(pid)).find(Boolean) ?? null;
}
