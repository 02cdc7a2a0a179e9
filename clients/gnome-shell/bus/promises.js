/**
 * Gio's asynchronous calls as promises, without touching Gio's own classes: the shell and other extensions use them as well.
 */
import Gio from 'gi://Gio';
import GLib from 'gi://GLib';

// The service is not started by somebody who only looks.
const FLAGS = Gio.DBusProxyFlags.DO_NOT_AUTO_START;

/**
 * @param {Gio.DBusConnection} connection - the system bus
 * @param {string} name - of the service
 * @param {string} path - of the object
 * @param {string} iface - name of the interface
 * @param {Gio.Cancellable} cancellable - ends it
 * @returns {Promise<Gio.DBusProxy>} the proxy, with its properties
 */
export function openProxy(connection, name, path, iface, cancellable) {
    return unlessCancelled(cancellable, new Promise((resolve, reject) => {
        Gio.DBusProxy.new(connection, FLAGS, null, name, path, iface, cancellable, (_source, result) => {
            try {
                resolve(Gio.DBusProxy.new_finish(result));
            } catch (error) {
                reject(error);
            }
        });
    }));
}

/**
 * @param {Gio.DBusConnection} connection - the system bus
 * @param {object} call - name, path, iface, member, parameters (GLib.Variant or null), timeout in ms, ask: whether a
 *     password may be asked for
 * @param {Gio.Cancellable} cancellable - ends it
 * @returns {Promise<Array>} the reply, unpacked
 */
export function callMethod(connection, call, cancellable) {
    const flags = call.ask
        ? Gio.DBusCallFlags.ALLOW_INTERACTIVE_AUTHORIZATION | Gio.DBusCallFlags.NO_AUTO_START
        : Gio.DBusCallFlags.NO_AUTO_START;
    return unlessCancelled(cancellable, new Promise((resolve, reject) => {
        connection.call(call.name, call.path, call.iface, call.member, call.parameters ?? null, null,
            flags, call.timeout ?? -1, cancellable, (_source, result) => {
                try {
                    resolve(connection.call_finish(result).recursiveUnpack());
                } catch (error) {
                    reject(error);
                }
            });
    }));
}

/**
 * @param {Error} error - whatever was thrown
 * @returns {boolean} whether somebody did not want the answer any more
 */
export function isCancelled(error) {
    return error instanceof GLib.Error && error.matches(Gio.IOErrorEnum, Gio.IOErrorEnum.CANCELLED);
}

/**
 * @param {Error} error - whatever was thrown
 * @returns {object} name and message, as the service has given them
 */
export function problemOf(error) {
    const name = (error instanceof GLib.Error && Gio.DBusError.get_remote_error(error)) || nameOf(error);
    return {name, message: String(error.message ?? error).replace(/^GDBus\.Error:[^:\s]+: /, '')};
}

/**
 * @param {Error} error - one that did not come over the bus
 * @returns {string} the bus's name for the like
 */
function nameOf(error) {
    if (!(error instanceof GLib.Error))
        return '';
    if (error.matches(Gio.IOErrorEnum, Gio.IOErrorEnum.TIMED_OUT))
        return 'org.freedesktop.DBus.Error.NoReply';
    return error.matches(Gio.IOErrorEnum, Gio.IOErrorEnum.CLOSED) ? 'org.freedesktop.DBus.Error.Disconnected' : '';
}

/**
 * @returns {GLib.Error} what Gio says of something cancelled
 */
function cancelled() {
    return new GLib.Error(Gio.IOErrorEnum, Gio.IOErrorEnum.CANCELLED, 'cancelled');
}

/**
 * What has been answered may be cancelled before anybody sees it: promises go on in a turn of the main loop of their own,
 * and other things have theirs in between.
 *
 * @param {Gio.Cancellable} cancellable - ends it
 * @param {Promise} answer - that is waited for
 * @returns {Promise} the same; rejected as cancelled where nobody wants it any more
 */
async function unlessCancelled(cancellable, answer) {
    const [outcome] = await Promise.allSettled([answer]);
    if (cancellable?.is_cancelled())
        throw cancelled();
    if (outcome.status === 'rejected')
        throw outcome.reason;
    return outcome.value;
}
