/**
 * Hands and eyes in the shell, for tests: evaluated in it once, kept as seen.
 *
 * What is shown is found by its text, as a person finds it; there are no coordinates in any test.
 */
(() => {
    const {Clutter, St, GLib} = imports.gi;
    const extension = () => Main.extensionManager.lookup('gpuhandoff@gpuhandoff.org').stateObj;

    function* walk(actor) {
        if (!actor.mapped)
            return;
        yield actor;
        for (const child of actor.get_children())
            yield* walk(child);
    }

    function pressable(actor) {
        for (let one = actor; one; one = one.get_parent()) {
            if (one instanceof St.Button || typeof one.activate === 'function' && 'sensitive' in one)
                return one;
        }
        return null;
    }

    const labels = () => [...walk(Main.uiGroup)].filter(actor => actor instanceof St.Label && actor.text);
    // The text of a dialog's or a notification's button is its own; other buttons complain when they are asked for it.
    const isDialogButton = actor => actor instanceof St.Button &&
        ['modal-dialog-button', 'notification-button'].some(name => actor.has_style_class_name(name));
    const textOf = actor => isDialogButton(actor) ? actor.label : actor instanceof St.Label && actor.text || '';
    const keyboard = () => {
        seen._keyboard ??= global.stage.context.get_backend().get_default_seat()
            .create_virtual_device(Clutter.InputDeviceType.KEYBOARD_DEVICE);
        return seen._keyboard;
    };

    globalThis.seen = {
        get toggle() {
            return extension()._indicator.toggle;
        },
        get dialog() {
            return extension()._indicator._dialog;
        },
        open() {
            Main.panel.statusArea.quickSettings.menu.open(0);
            this.toggle.menu.open(false);
        },
        close() {
            Main.panel.statusArea.quickSettings.menu.close(0);
        },
        texts() {
            return [...walk(Main.uiGroup)].map(textOf).filter(Boolean);
        },
        cut() {
            return labels().filter(label => label.clutter_text.get_layout().is_ellipsized()).map(label => label.text);
        },
        press(text) {
            const label = [...walk(Main.uiGroup)].find(one => textOf(one) === text && pressable(one));
            if (!label)
                return false;
            const target = pressable(label);
            if (target instanceof St.Button)
                target.emit('clicked', 0);
            else
                target.activate(Clutter.get_current_event());
            return true;
        },
        key(name) {
            const value = Clutter[`KEY_${name}`];
            keyboard().notify_keyval(GLib.get_monotonic_time(), value, Clutter.KeyState.PRESSED);
            keyboard().notify_keyval(GLib.get_monotonic_time() + 1, value, Clutter.KeyState.RELEASED);
            return true;
        },
        focused() {
            const actor = global.stage.key_focus;
            if (!actor || actor === global.stage)
                return '';
            return actor.accessible_name ?? actor.label_actor?.text ?? actor.label?.text ?? actor.get_accessible?.()?.get_name() ?? '';
        },
        // Everything that a screen reader can reach in the menu or the dialog, with what it says.
        spoken() {
            return [...walk(Main.uiGroup)].filter(actor => actor.can_focus).map(actor => ({
                role: actor.get_accessible()?.get_role(),
                name: actor.accessible_name || actor.label_actor?.text || actor.get_accessible()?.get_name() || '',
            }));
        },
        children() {
            return Main.panel.statusArea.quickSettings.menu._overlay.get_n_children();
        },
    };
    return true;
})();
