import QtQml
import org.kde.plasma.workspace.dbus as DBus
import "bus.mjs" as Bus
import "plan.mjs" as Plan

// One graphics card: what its object on the bus says, who uses it, and the move that is planned or under way.
QtObject {
    id: card

    required property string address
    required property bool present
    /** Whether somebody looks, so that who uses the card matters. */
    property bool watched: false

    readonly property string path: Bus.gpuPath(address)
    readonly property string model: Plan.shortName(Bus.text(gpu.properties.Name))
    /** Whether the computer has another one of this model, so that only the address tells them apart. */
    property bool twin: false
    readonly property string name: twin ? `${model} (${address.replace(/^0000:/, "")})` : model
    readonly property string state: Bus.text(gpu.properties.State)
    readonly property string reason: Bus.text(gpu.properties.Reason)
    readonly property string driver: Bus.text(gpu.properties.Driver)
    readonly property string vm: Bus.text(gpu.properties.Vm)
    readonly property string owner: Bus.text(gpu.properties.Owner)
    readonly property string jobPath: Bus.text(gpu.properties.Job)
    readonly property bool asleep: Bus.truth(gpu.properties.Asleep)
    readonly property bool integrated: Bus.truth(gpu.properties.Integrated)
    readonly property bool drivesDisplay: Bus.truth(gpu.properties.DrivesDisplay)
    readonly property string desktop: Bus.text(gpu.properties.Desktop)
    readonly property string verdict: Bus.text(gpu.properties.ResetVerdict)
    readonly property string verdictReason: Bus.text(gpu.properties.ResetReason)
    readonly property bool risk: Bus.truth(gpu.properties.ResetRisk)
    readonly property bool known: state !== ""
    readonly property bool cancelable: Bus.truth(job.properties.Cancelable)

    /** The step at work, as Progress tells it; index 0 where nothing was told. */
    property string step: ""
    property string phase: ""
    property int index: 0
    property int count: 0

    /** Who has it open: who, icon, leaves. */
    property list<var> holders: []
    /** What would be done: Plan.preview and consents; null where nothing is planned. */
    property var planned: null
    /** What a plan rests on: the card as it was, and somebody who reads it. */
    readonly property string grounds: [watched, present, state, driver, drivesDisplay].join(" ")
    property bool asking: false
    /** The latest thing that went wrong: name, message, and direction: handoff, reclaim, or cancel; null for nothing. */
    property var failure: null

    property DBus.Properties gpu: DBus.Properties {
        busType: DBus.BusType.System
        service: card.present ? Bus.SERVICE : ""
        path: card.path
        iface: Bus.GPU
    }

    property DBus.Properties job: DBus.Properties {
        busType: DBus.BusType.System
        service: card.present && card.jobPath.length > 1 ? Bus.SERVICE : ""
        path: card.jobPath || Bus.NO_JOB
        iface: Bus.JOB
    }

    property Timer look: Timer {
        interval: 5000
        repeat: true
        running: card.watched && card.present && card.state === "host"
        triggeredOnStart: true
        onTriggered: card.askHolders()
    }

    onStateChanged: {
        if (!Plan.isMoving(state)) {
            step = "";
            phase = "";
            index = 0;
            count = 0;
        }
        if (state !== "host") {
            holders = [];
        }
    }

    onGroundsChanged: planned = null

    onPresentChanged: {
        asking = false;
        failure = null;
    }

    function progress(step: string, phase: string, index: int, count: int): void {
        card.step = step;
        card.phase = phase;
        card.index = index;
        card.count = count;
        card.failure = null;
    }

    function askHolders(): void {
        const call = Bus.call(Bus.MANAGER_PATH, Bus.MANAGER, "Holders", "(s)", [address]);
        DBus.SystemBus.asyncCall(call, reply => {
            holders = state === "host" ? Plan.holders(reply.value) : [];
        }, () => {
            holders = []; // who may not know, or a daemon that just went
        });
    }

    /** Ask what a move would do. Ending the desktop and the card's own risk are consented to with the plan in sight. */
    function plan(direction: string, endHolders: bool): void {
        const consents = { display: drivesDisplay, risk: risk, holders: endHolders };
        const call = Bus.call(Bus.MANAGER_PATH, Bus.MANAGER, "Preview", "(ssa{sv})", [address, direction, Plan.options(direction, consents)]);
        const asked = grounds;
        failure = null;
        asking = true;
        DBus.SystemBus.asyncCall(call, reply => {
            asking = false;
            if (asked !== grounds) {
                return; // whoever still wants it asks again
            }
            planned = Object.assign(Plan.preview(reply.value), { direction: direction, consents: consents });
        }, reply => {
            asking = false;
            planned = null;
            fail(reply.error, direction);
        });
    }

    /** Do what is planned. */
    function begin(): void {
        const direction = planned.direction;
        const member = direction === "handoff" ? "Handoff" : "Reclaim";
        const call = Bus.call(Bus.MANAGER_PATH, Bus.MANAGER, member, "(sa{sv})", [address, Plan.beginning(direction, planned.consents)]);
        planned = null;
        asking = true;
        DBus.SystemBus.asyncCall(call, () => {
            asking = false;
        }, reply => {
            asking = false;
            fail(reply.error, direction);
        });
    }

    function cancel(): void {
        DBus.SystemBus.asyncCall(Bus.call(jobPath, Bus.JOB, "Cancel", "", []), null, reply => fail(reply.error, "cancel"));
    }

    /** A job that had to do with some card has ended; where it was this one's and not well, say why. */
    function jobEnded(path: string, result: string): void {
        if (result === "done") {
            return;
        }
        const call = Bus.call(path, "org.freedesktop.DBus.Properties", "GetAll", "(s)", [Bus.JOB]);
        DBus.SystemBus.asyncCall(call, reply => {
            const job = reply.value;
            if (Bus.text(job["Gpu"]) === card.path && Bus.text(job["ErrorName"]) !== "") {
                failure = { name: Bus.text(job["ErrorName"]), message: Bus.text(job["ErrorMessage"]), direction: Bus.text(job["Operation"]) };
            }
        }, () => {}); // a job that nobody remembers any more has nothing to say
    }

    function fail(error: var, direction: string): void {
        const name = Bus.text(error.name);
        failure = Bus.isUnknown(name) ? null : { name: name, message: Bus.text(error.message), direction: direction };
    }
}
