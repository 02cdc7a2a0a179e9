/**
 * The service: whether it is there, its cards, and what can be asked of it.
 */
import Gio from 'gi://Gio';
import GLib from 'gi://GLib';

import {BUS_NAME, JOB, MANAGER, MANAGER_PATH} from './names.js';
import {RemoteObject} from './properties.js';
import {TrackedCard} from './trackedCard.js';
import {callMethod, isCancelled} from './promises.js';

/** A person may take as long as they like with a password; milliseconds. */
const FOREVER = GLib.MAXINT32;

/** Surveys look at every process of the machine; milliseconds. */
const PATIENT = 60000;

export class Daemon {
    /**
     * @param {Gio.DBusConnection} connection - the system bus
     * @param {object} told - changed(): something to show has changed; ended(card, operation, problem): a job has ended
     */
    constructor(connection, told) {
        this._connection = connection;
        this._told = told;
        this._cancellable = new Gio.Cancellable();
        this._manager = null;
        this._tracked = new Map();
    }

    /** Look for the service and follow it, whenever it comes and goes. */
    async start() {
        const manager = await RemoteObject.open(this._connection, MANAGER_PATH, MANAGER, this._cancellable, () => this._sync());
        if (this._cancellable.is_cancelled()) {
            manager.close();
            return;
        }
        this._manager = manager;
        this._manager.connect('g-signal', (_proxy, _sender, member, parameters) => this._onSignal(member, parameters));
        this._manager.connect('notify::g-name-owner', () => this._onOwner());
        this._onOwner();
    }

    /** @returns {boolean} whether the service is there */
    get running() {
        return Boolean(this._manager?.proxy.g_name_owner);
    }

    /** @returns {TrackedCard[]} all cards that something is known of: those with a slot of their own first, then by address */
    get tracked() {
        const rank = one => `${Number(one.card.integrated)} ${one.address}`;
        return [...this._tracked.values()].filter(one => one.card.state).sort((a, b) => rank(a) < rank(b) ? -1 : 1);
    }

    /** @returns {object[]} the values of all cards */
    get cards() {
        return this.tracked.map(one => one.card);
    }

    /**
     * @param {string} address - of a card
     * @param {string} direction - handoff or reclaim
     * @param {object} options - plain values
     * @param {Gio.Cancellable} cancellable - ends it
     * @returns {Promise<object>} what would be done, unpacked
     */
    async preview(address, direction, options, cancellable) {
        const parameters = new GLib.Variant('(ssa{sv})', [address, direction, packed(options)]);
        const [preview] = await this._call('Preview', {parameters, timeout: PATIENT, ask: true}, cancellable);
        return preview;
    }

    /**
     * @param {string} address - of a card
     * @param {Gio.Cancellable} cancellable - ends it
     * @returns {Promise<object[]>} who has it open, unpacked
     */
    async holders(address, cancellable) {
        const parameters = new GLib.Variant('(s)', [address]);
        const [holders] = await this._call('Holders', {parameters, timeout: PATIENT}, cancellable);
        return holders;
    }

    /**
     * Begin a move; the card's progress and problem tell the rest.
     *
     * @param {string} address - of a card
     * @param {string} direction - handoff or reclaim
     * @param {object} options - plain values
     */
    async move(address, direction, options) {
        const member = direction === 'handoff' ? 'Handoff' : 'Reclaim';
        const parameters = new GLib.Variant('(sa{sv})', [address, packed({...options, wait: false})]);
        this._tracked.get(address)?.setProblem(null);
        const [job] = await this._call(member, {parameters, timeout: FOREVER, ask: true}, this._cancellable);
        await this._tracked.get(address)?.follow(job);
    }

    /**
     * @param {string} job - path of a job
     */
    async cancel(job) {
        await this._call('Cancel', {path: job, iface: JOB, timeout: FOREVER, ask: true}, this._cancellable);
    }

    /** Have the bus start the service. */
    async wake() {
        await callMethod(this._connection, {
            name: 'org.freedesktop.DBus',
            path: '/org/freedesktop/DBus',
            iface: 'org.freedesktop.DBus',
            member: 'StartServiceByName',
            parameters: new GLib.Variant('(su)', [BUS_NAME, 0]),
            timeout: PATIENT,
        }, this._cancellable);
    }

    /** Leave nothing behind. */
    stop() {
        this._cancellable.cancel();
        this._forget([...this._tracked.keys()]);
        this._manager?.close();
        this._manager = null;
    }

    _call(member, call, cancellable) {
        return callMethod(this._connection, {name: BUS_NAME, path: MANAGER_PATH, iface: MANAGER, member, ...call}, cancellable);
    }

    _onOwner() {
        // What was known of a service that has gone is not known of the next one.
        this._forget([...this._tracked.keys()]);
        this._sync();
    }

    _sync() {
        const addresses = this.running ? this._manager.properties.Gpus ?? [] : [];
        this._forget([...this._tracked.keys()].filter(address => !addresses.includes(address)));
        for (const address of addresses.filter(one => !this._tracked.has(one)))
            this._track(address);
        this._told.changed();
    }

    _track(address) {
        const tracked = new TrackedCard(this._connection, address, this._told);
        this._tracked.set(address, tracked);
        tracked.open().catch(error => {
            if (!isCancelled(error))
                console.warn(`gpuhandoff: the card ${address} cannot be followed: ${error.message}`);
        });
    }

    _forget(addresses) {
        for (const address of addresses) {
            this._tracked.get(address).close();
            this._tracked.delete(address);
        }
    }

    _onSignal(member, parameters) {
        if (member !== 'Progress')
            return;
        const [path, ...progress] = parameters.recursiveUnpack();
        [...this._tracked.values()].find(one => one.path === path)?.onProgress(...progress);
    }
}

/**
 * @param {object} options - plain values
 * @returns {object} the same as the bus takes them
 */
function packed(options) {
    const type = value => typeof value === 'boolean' ? 'b' : 's';
    return Object.fromEntries(Object.entries(options).map(([key, value]) => [key, new GLib.Variant(type(value), value)]));
}
