/**
 * A place in the menu for a few sentences: why there is nothing else in it.
 */
import GObject from 'gi://GObject';

import {column, paragraph, setText} from './box.js';
import {WrappingItem} from './wrappingItem.js';

export const NoteItem = GObject.registerClass(
class GpuHandoffNoteItem extends WrappingItem {
    constructor() {
        super();
        const box = column();
        this._title = paragraph('', {style_class: 'gpuhandoff-name'});
        this._text = paragraph('');
        this._remedy = paragraph('', {style_class: 'gpuhandoff-dim'});
        for (const label of [this._title, this._text, this._remedy])
            box.add_child(label);
        this.add_child(box);
    }

    /**
     * @param {object} words - title, text, remedy
     */
    show_(words) {
        setText(this._title, words.title);
        setText(this._text, words.text);
        setText(this._remedy, words.remedy);
        this.accessible_name = [words.title, words.text, words.remedy].filter(Boolean).join(' ');
    }
});
