/**
 * A remote object that is watched: its properties now, and a call when they change.
 */
import {openProxy} from './promises.js';
import {BUS_NAME} from './names.js';

export class RemoteObject {
    /**
     * @param {Gio.DBusProxy} proxy - that has its properties
     * @param {Function} changed - called without arguments after properties have changed
     */
    constructor(proxy, changed) {
        this.proxy = proxy;
        this._handlers = [proxy.connect('g-properties-changed', () => changed())];
    }

    /**
     * @param {Gio.DBusConnection} connection - the system bus
     * @param {string} path - of the object
     * @param {string} iface - name of the interface
     * @param {Gio.Cancellable} cancellable - ends it
     * @param {Function} changed - called when properties have changed
     * @returns {Promise<RemoteObject>} the object
     */
    static async open(connection, path, iface, cancellable, changed) {
        return new RemoteObject(await openProxy(connection, BUS_NAME, path, iface, cancellable), changed);
    }

    /**
     * @returns {object} all properties, unpacked
     */
    get properties() {
        const names = this.proxy.get_cached_property_names() ?? [];
        return Object.fromEntries(names.map(name => [name, this.proxy.get_cached_property(name)?.recursiveUnpack()]));
    }

    /**
     * @param {string} signal - of the proxy
     * @param {Function} handler - called until the end
     */
    connect(signal, handler) {
        this._handlers.push(this.proxy.connect(signal, handler));
    }

    /** Stop watching. The proxy leaves the bus when nobody has it any more. */
    close() {
        for (const handler of this._handlers)
            this.proxy.disconnect(handler);
        this._handlers = [];
        this.proxy = null;
    }
}
