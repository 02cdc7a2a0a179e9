/**
 * An entry of the menu whose texts break their lines.
 *
 * The quick settings ask for an entry's height without telling its width, which fits only texts of one line.
 */
import Atk from 'gi://Atk';
import GLib from 'gi://GLib';
import GObject from 'gi://GObject';
import Meta from 'gi://Meta';
import * as PopupMenu from 'resource:///org/gnome/shell/ui/popupMenu.js';

export const WrappingItem = GObject.registerClass(
class GpuHandoffWrappingItem extends PopupMenu.PopupBaseMenuItem {
    constructor() {
        // Does nothing, but can have the focus: a screen reader reads what has it.
        super({activate: false, hover: false, style_class: 'gpuhandoff-entry'});
        this.accessible_role = Atk.Role.LABEL;
        this._room = -1;
        this._later = 0;
        this.connect('destroy', () => this._forgetLater());
    }

    vfunc_get_preferred_height(forWidth) {
        return super.vfunc_get_preferred_height(forWidth < 0 ? this._room : forWidth);
    }

    vfunc_allocate(box) {
        super.vfunc_allocate(box);
        if (box.get_width() === this._room)
            return;
        this._room = box.get_width();
        this._forgetLater();
        // The height that was told before is wrong now; saying so has to wait until this layout is done.
        this._later = global.compositor.get_laters().add(Meta.LaterType.BEFORE_REDRAW, () => {
            this._later = 0;
            this.queue_relayout();
            return GLib.SOURCE_REMOVE;
        });
    }

    _forgetLater() {
        if (this._later)
            global.compositor.get_laters().remove(this._later);
        this._later = 0;
    }
});
