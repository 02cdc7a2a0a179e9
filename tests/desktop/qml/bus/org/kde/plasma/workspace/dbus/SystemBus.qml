pragma Singleton

import QtQml

// In the place of Plasma's own: a bus on which a test is the daemon, so that it answers when the test wants.
QtObject {
    property bool running: false
    /** Properties by the object's path. */
    property var objects: ({})
    /** Calls that were not answered yet: member, resolve, reject. */
    property var calls: []

    function asyncCall(message: var, resolve: var, reject: var): void {
        calls.push({ member: message.member, resolve: resolve, reject: reject });
    }

    function taken(member: string): var {
        const index = calls.findIndex(call => call.member === member);
        return calls.splice(index, 1)[0];
    }

    function answer(member: string, value: var): void {
        taken(member).resolve({ value: value });
    }

    function refuse(member: string, name: string, message: string): void {
        taken(member).reject({ error: { name: name, message: message } });
    }
}
