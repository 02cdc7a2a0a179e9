// What a person is told before and while a card moves, as values without words.

import * as Bus from "bus.mjs";

/** Options of a move: `consents` are those that were given, by the names that the bus has for them. */
export function options(direction, consents) {
    const given = {};
    if (direction === "handoff" && consents.display) {
        given["stop-display"] = true;
    }
    if (direction === "handoff" && consents.risk) {
        given["accept-risk"] = true;
    }
    if (consents.holders) {
        given["holders"] = "terminate";
    }
    return given;
}

/** Options to begin with: answered at once, since a person may need longer for a password than a call waits. */
export function beginning(direction, consents) {
    return Object.assign({ wait: false, interactive: true }, options(direction, consents));
}

/** Preview's answer as plain values. */
export function preview(reply) {
    const steps = Bus.list(reply["steps"]).map(step => ({
        step: Bus.text(step["step"]),
        does: Bus.text(step["does"]),
        costs: Bus.text(step["costs"]),
        seconds: Bus.number(step["seconds"], -1),
    }));
    return {
        direction: Bus.text(reply["direction"]),
        steps: steps,
        seconds: Bus.number(reply["seconds"], -1),
        desktop: Bus.text(reply["desktop"]),
        programs: Bus.texts(reply["programs"]),
        more: Bus.number(reply["more-programs"], 0),
        sessions: Bus.texts(reply["sessions"]),
        lost: Bus.texts(reply["lost"]),
        ended: Bus.texts(reply["ended"]),
        verdict: Bus.text(reply["reset-verdict"]),
        verdictReason: Bus.text(reply["reset-reason"]),
        risk: Bus.truth(reply["reset-risk"]),
        needed: Bus.truth(reply["needed"]),
        evicts: Bus.texts(reply["asks"]).includes("org.gpuhandoff.evict-guest"),
        undoes: steps.every(step => step.does === "undo it"),
    };
}

/** What it costs, each once, in the order of the steps. */
export function costs(preview) {
    return preview.steps.map(step => step.costs).filter((cost, index, all) => cost && all.indexOf(cost) === index);
}

/** Holders' answer as plain values; programs of one name are one, and those that do not let go by themselves come first. */
export function holders(reply) {
    const found = Bus.list(reply).map(one => ({
        who: Bus.text(one["who"]) || Bus.text(one["name"]),
        icon: icon(Bus.text(one["app"]), Bus.text(one["name"])),
        leaves: Bus.truth(one["leaves"]),
    }));
    const different = found.filter((one, index) => found.findIndex(other => other.who === one.who) === index);
    return [...different.filter(one => !one.leaves), ...different.filter(one => one.leaves)];
}

/** "GeForce RTX 4070", as people say it, of "NVIDIA AD104 [GeForce RTX 4070]". */
export function shortName(name) {
    return /\[([^\]]+)\]/.exec(name)?.[1] ?? name;
}

/** What the daemon says, without the bus's names of options: here there are buttons for them. */
export function sentence(text) {
    return text.replace(/ (?:with|by) the option [a-z-]+(?:=[a-z]+)?/g, "");
}

/** Whether what the daemon says comes with a consent: who has the card open may be ended. Some of them never are. */
export function offersEnd(text) {
    return text.includes("with the option holders=terminate");
}

/** A name of an icon; never a path, since programs choose their names themselves. */
export function icon(app, name) {
    const fits = one => /^[A-Za-z0-9][A-Za-z0-9._+-]*$/.test(one);
    return [app.replace(/\.desktop$/, ""), name.toLowerCase()].find(fits) ?? "";
}

/** How much of a move is done, 0 to 1, after a Progress signal. */
export function share(phase, index, count) {
    if (count <= 0) {
        return 0;
    }
    const behind = { apply: index - 1, done: index, undo: count - index, undone: count - index + 1 }[phase] ?? 0;
    return Math.max(0, Math.min(1, behind / count));
}

/** Of several cards, the state that somebody who glances at the tray should see. */
export function foremost(states) {
    const order = ["stuck", "handing-off", "reclaiming", "guest", "detached", "foreign", "host"];
    return order.find(state => states.includes(state)) ?? "";
}

export function canHandOver(state) {
    return state === "host";
}

export function canTakeBack(state) {
    return ["detached", "guest", "foreign", "stuck"].includes(state);
}

export function isMoving(state) {
    return state === "handing-off" || state === "reclaiming";
}
