/**
 * The real service over a simulated machine, on the bus that the environment names, coming and going as a test wants.
 */
import Gio from 'gi://Gio';
import GLib from 'gi://GLib';
import System from 'system';

import {Daemon} from '../../clients/gnome-shell/bus/daemon.js';
import {callMethod} from '../../clients/gnome-shell/bus/promises.js';

export const CARD = '0000:01:00.0';
export const SIMULATION = 'org.gpuhandoff.Simulation';

/** In seconds: on an idle machine nothing takes a hundredth of it. */
const PATIENCE = 60;

/**
 * Wait until something is so; it is looked at whenever `changed` is called, and now and then.
 */
export class Watcher {
    constructor() {
        this._waiting = new Set();
        this.calls = 0;
    }

    /** To be called when something has changed. */
    changed() {
        this.calls += 1;
        for (const look of this._waiting)
            look();
    }

    /**
     * @param {Function} condition - returns something true when it is so
     * @param {string} what - is waited for
     * @returns {Promise<*>} what the condition returned
     */
    until(condition, what) {
        return new Promise((resolve, reject) => {
            const waiting = {look: null, timer: 0, ticks: 0};
            const finish = (settle, value) => {
                this._waiting.delete(waiting.look);
                GLib.source_remove(waiting.timer);
                settle(value);
            };
            waiting.look = () => {
                const found = condition();
                if (found)
                    finish(resolve, found);
            };
            waiting.timer = GLib.timeout_add(GLib.PRIORITY_DEFAULT, 50, () => {
                waiting.ticks += 1;
                if (waiting.ticks > PATIENCE * 20)
                    finish(reject, new Error(`not in ${PATIENCE} s: ${what}`));
                else
                    waiting.look();
                return GLib.SOURCE_CONTINUE;
            });
            this._waiting.add(waiting.look);
            waiting.look();
        });
    }
}

/** A service process, and a client of it as the extension has one. */
export class Stage {
    constructor() {
        this.bus = Gio.DBus.system;
        this.watcher = new Watcher();
        this.ended = [];
        this.daemon = new Daemon(this.bus, {
            changed: () => this.watcher.changed(),
            ended: (card, operation, problem) => this.ended.push({address: card.address, operation, problem}),
        });
        this._process = null;
    }

    /**
     * @param {string} scenario - name of a simulated machine
     * @param {...string} words - further arguments of the service
     */
    async startService(scenario, ...words) {
        const command = [...GLib.getenv('GPUHANDOFF_SIMULATED').split(' '), scenario, ...words];
        const flags = GLib.getenv('GPUHANDOFF_LOUD') ? Gio.SubprocessFlags.NONE : Gio.SubprocessFlags.STDERR_SILENCE;
        this._process = Gio.Subprocess.new(command, flags);
        await this.watcher.until(() => this._owner(), 'the service owns its name');
    }

    /**
     * @param {boolean} killed - without a chance to say goodbye
     */
    async endService(killed = false) {
        if (!this._process)
            return;
        const process = this._process;
        this._process = null;
        if (killed)
            process.force_exit();
        else
            process.send_signal(15);
        await new Promise(resolve => {
            process.wait_async(null, (_source, result) => {
                process.wait_finish(result);
                resolve();
            });
        });
    }

    /**
     * @param {string} member - of the simulation's interface
     * @param {GLib.Variant} parameters - for it
     */
    async simulate(member, parameters) {
        const call = {name: SIMULATION, path: '/org/gpuhandoff/Simulation', iface: SIMULATION, member, parameters};
        await callMethod(this.bus, call, null);
    }

    /**
     * @param {string} address - of a card
     * @returns {?object} it
     */
    tracked(address = CARD) {
        return this.daemon.tracked.find(one => one.address === address) ?? null;
    }

    /**
     * @param {string} state - to wait for
     * @param {string} address - of a card
     * @returns {Promise<object>} the card in that state, with no job any more
     */
    async until(state, address = CARD) {
        await this.watcher.until(() => this.tracked(address)?.card.state === state, `${address} is ${state}`);
        return this.tracked(address);
    }

    /** End everything. */
    async close() {
        this.daemon.stop();
        await this.endService();
    }

    _owner() {
        const reply = this.bus.call_sync('org.freedesktop.DBus', '/org/freedesktop/DBus', 'org.freedesktop.DBus', 'NameHasOwner',
            new GLib.Variant('(s)', ['org.gpuhandoff.Manager']), null, Gio.DBusCallFlags.NONE, -1, null);
        return reply.recursiveUnpack()[0];
    }
}

/**
 * @param {string} scenario - name of a simulated machine, or '' for no service at first
 * @param {Function} test - takes the stage
 */
export async function onStage(scenario, test) {
    const stage = new Stage();
    try {
        if (scenario)
            await stage.startService(scenario);
        await stage.daemon.start();
        await test(stage);
    } finally {
        await stage.close();
    }
}

/**
 * @returns {number} how many match rules this process has for the service, once what nobody has any more is gone
 */
export async function matchRules() {
    // A proxy's rules go with it, and it goes when the garbage collector comes.
    System.gc();
    await pause();
    System.gc();
    await pause();
    const reply = Gio.DBus.system.call_sync('org.freedesktop.DBus', '/org/freedesktop/DBus', 'org.freedesktop.DBus.Debug.Stats',
        'GetAllMatchRules', null, null, Gio.DBusCallFlags.NONE, -1, null);
    const rules = reply.recursiveUnpack()[0][Gio.DBus.system.get_unique_name()] ?? [];
    return rules.filter(rule => rule.includes('org.gpuhandoff')).length;
}

/**
 * @returns {Promise} that comes when everything has been done that was to be done
 */
function pause() {
    return new Promise(resolve => {
        GLib.timeout_add(GLib.PRIORITY_LOW, 200, () => {
            resolve();
            return GLib.SOURCE_REMOVE;
        });
    });
}
