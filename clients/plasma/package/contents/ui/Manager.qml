pragma ComponentBehavior: Bound

import QtQml
import org.kde.plasma.workspace.dbus as DBus
import "bus.mjs" as Bus
import "plan.mjs" as Plan

// The daemon: whether it is there, and its cards. It may come and go at any time.
QtObject {
    id: manager

    property bool watched: false
    readonly property bool present: watcher.registered
    /** Addresses of all cards, of the last daemon where there is none: so its cards stay what they are when it comes again. */
    property string known: ""
    /** Addresses of those that the daemon has named; null before it has named any, which is not the same as none. */
    readonly property var told: properties.properties.Gpus === undefined ? null : Bus.texts(properties.properties.Gpus)
    readonly property string layoutReason: Bus.text(properties.properties.LayoutReason)
    // What is lent more often comes first, and stays there whatever moves.
    readonly property list<Card> cards: [...found].sort((one, other) => Number(one.integrated) - Number(other.integrated))
    property list<Card> found: []
    readonly property string foremost: Plan.foremost(cards.map(card => card.state))
    property bool starting: false
    /** Why it could not be started: name, message; null for nothing. */
    property var failure: null

    onToldChanged: {
        if (told !== null) {
            known = told.join(" ");
        }
    }

    property DBus.DBusServiceWatcher watcher: DBus.DBusServiceWatcher {
        busType: DBus.BusType.System
        watchedService: Bus.SERVICE
        onRegisteredChanged: manager.failure = null
    }

    // Without a service nothing is asked, so that reading alone never starts the daemon.
    property DBus.Properties properties: DBus.Properties {
        busType: DBus.BusType.System
        service: manager.present ? Bus.SERVICE : ""
        path: Bus.MANAGER_PATH
        iface: Bus.MANAGER
    }

    property Instantiator instances: Instantiator {
        model: manager.known ? manager.known.split(" ") : []
        delegate: Card {
            required property string modelData
            address: modelData
            twin: manager.cards.some(other => other.address !== address && other.model === model)
            // Another daemon may know other cards: of those that this one has not named nothing is asked.
            present: manager.present && (manager.told?.includes(address) ?? false)
            watched: manager.watched
        }
        // Counting them is not enough: there may be as many as before, and none of those.
        onObjectAdded: (index, object) => manager.found = [...manager.found, object as Card]
        onObjectRemoved: (index, object) => manager.found = manager.found.filter(card => card !== object)
    }

    // Every signal of the interface has its function: one without is warned about, each time it comes.
    property DBus.SignalWatcher signals: DBus.SignalWatcher {
        enabled: manager.present
        busType: DBus.BusType.System
        service: Bus.SERVICE
        path: Bus.MANAGER_PATH
        iface: Bus.MANAGER

        function dbusStateChanged(gpu, state, reason) {}
        function dbusDriverChanged(address, before, now) {}
        function dbusPrepareForHandoff(gpu, start) {}
        function dbusJobNew(job) {}

        function dbusProgress(gpu, step, phase, index, count) {
            const card = manager.card(Bus.text(gpu));
            card?.progress(Bus.text(step), Bus.text(phase), Number(index), Number(count));
        }

        function dbusJobRemoved(job, result) {
            manager.cards.forEach(card => card.jobEnded(Bus.text(job), Bus.text(result)));
        }
    }

    function card(path: string): Card {
        return cards.find(card => card.path === path) ?? null;
    }

    /** Have the bus start the daemon, as every call does. */
    function start(): void {
        starting = true;
        failure = null;
        DBus.SystemBus.asyncCall(Bus.call(Bus.MANAGER_PATH, Bus.MANAGER, "Status", "", []), () => {
            starting = false;
        }, reply => {
            starting = false;
            failure = { name: Bus.text(reply.error.name), message: Bus.text(reply.error.message) };
        });
    }
}
