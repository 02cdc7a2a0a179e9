/**
 * Small pieces that the menu and the dialog are built of.
 */
import Clutter from 'gi://Clutter';
import GObject from 'gi://GObject';
import Pango from 'gi://Pango';
import St from 'gi://St';

/**
 * @param {object} properties - of the box
 * @returns {St.BoxLayout} a box whose children stand below each other, in every version of the shell
 */
export function column(properties = {}) {
    const box = new St.BoxLayout({x_expand: true, ...properties});
    box.layout_manager.orientation = Clutter.Orientation.VERTICAL;
    return box;
}

/**
 * @param {string} text - to show
 * @param {object} properties - of the label
 * @returns {St.Label} a label that breaks its lines
 */
export function paragraph(text, properties = {}) {
    const label = new St.Label({text, x_expand: true, ...properties});
    label.clutter_text.line_wrap = true;
    label.clutter_text.line_wrap_mode = Pango.WrapMode.WORD_CHAR;
    label.clutter_text.ellipsize = Pango.EllipsizeMode.NONE;
    return label;
}

/**
 * Show a text, or nothing where it is empty.
 *
 * @param {St.Label} label - to show it
 * @param {string} text - what
 */
export function setText(label, text) {
    label.text = text;
    label.visible = text !== '';
}

/** How much of something is done. */
export const ProgressBar = GObject.registerClass(
class GpuHandoffProgressBar extends St.Widget {
    constructor() {
        super({style_class: 'gpuhandoff-trough', x_expand: true, visible: false});
        this._fraction = 0;
        this._fill = new St.Widget({style_class: 'gpuhandoff-fill'});
        this.add_child(this._fill);
    }

    get fraction() {
        return this._fraction;
    }

    set fraction(value) {
        this._fraction = value;
        this.queue_relayout();
    }

    vfunc_allocate(box) {
        this.set_allocation(box);
        const content = this.get_theme_node().get_content_box(box);
        const whole = content.get_width();
        // A round end needs some length; from the right where people read from there.
        const length = Math.max(whole * this._fraction, content.get_height());
        if (this.get_text_direction() === Clutter.TextDirection.RTL)
            content.x1 = content.x2 - length;
        else
            content.x2 = content.x1 + length;
        this._fill.allocate(content);
    }
});
