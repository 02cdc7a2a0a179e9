// The daemon's names, and its values as plain ones: what comes off the bus may be wrapped, and then is neither === nor falsy.

export const SERVICE = "org.gpuhandoff.Manager";
export const MANAGER = "org.gpuhandoff.Manager";
export const MANAGER_PATH = "/org/gpuhandoff/Manager";
export const GPU = "org.gpuhandoff.Gpu";
export const JOB = "org.gpuhandoff.Job";
export const NO_JOB = "/";

const ERRORS = "org.gpuhandoff.Error.";

export function text(value) {
    return value === undefined || value === null ? "" : String(value);
}

export function number(value, otherwise) {
    const found = value === undefined || value === null || String(value) === "" ? NaN : Number(value);
    return Number.isNaN(found) ? otherwise : found;
}

export function truth(value) {
    return value !== undefined && value !== null && String(value) === "true";
}

export function list(value) {
    const found = [];
    for (let index = 0; value !== undefined && value !== null && index < Number(value.length ?? 0); index++) {
        found.push(value[index]);
    }
    return found;
}

export function texts(value) {
    return list(value).map(text);
}

/** The path of a GPU's object: 0000:01:00.0 is at /org/gpuhandoff/gpus/pci_0000_01_00_0. */
export function gpuPath(address) {
    return "/org/gpuhandoff/gpus/pci_" + address.replace(/[:.]/g, "_");
}

/** The last part of an error's name: "InUse", "AccessDenied", "ServiceUnknown". */
export function errorKind(name) {
    return text(name).split(".").pop();
}

export function isOurs(name) {
    return text(name).startsWith(ERRORS);
}

/** A call without an answer in 25 s: a password is being typed, or the daemon went; nothing is known, so nothing is wrong. */
export function isUnknown(name) {
    return ["NoReply", "Timeout", "TimedOut", "Disconnected"].includes(errorKind(name)) && !isOurs(name);
}

export function isAbsent(name) {
    return ["ServiceUnknown", "NameHasNoOwner"].includes(errorKind(name)) || text(name).includes(".Spawn.");
}

/** A call of a method, as asyncCall takes it. */
export function call(path, iface, member, signature, args) {
    return { service: SERVICE, path: path, iface: iface, member: member, signature: signature, arguments: args };
}
