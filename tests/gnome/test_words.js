import Gio from 'gi://Gio';
import GLib from 'gi://GLib';

import {problemOf} from '../../clients/gnome-shell/bus/promises.js';
import {holdersOf} from '../../clients/gnome-shell/logic/holder.js';
import {besideCard, outcomeOf, problemWords} from '../../clients/gnome-shell/logic/problem.js';
import {fill} from '../../clients/gnome-shell/logic/translation.js';
import {assertEqual, assertTrue} from './assertions.js';

const NAMES = [
    'NotFound', 'Ambiguous', 'Busy', 'InUse', 'Inhibited', 'NotIsolated', 'NeedsConsent', 'Unsupported', 'WrongState', 'TimedOut',
    'Cancelled', 'RolledBack', 'Stuck',
];

export function testEveryErrorOfTheServiceSaysWhatToDo() {
    const all = NAMES.map(name => problemWords({name: `org.gpuhandoff.Error.${name}`, message: 'It is so.'}));
    assertEqual(new Set(all.map(one => one.title)).size, NAMES.length);
    for (const words of all) {
        assertEqual(words.text, 'It is so.');
        assertTrue(words.remedy.endsWith('.'), words.remedy);
    }
}

export function testOfACardThatIsStuckOnlyWhatItDoesNotSayItselfIsAdded() {
    const shown = NAMES.filter(name => besideCard({name: `org.gpuhandoff.Error.${name}`, message: 'It is so.'}));
    assertEqual(NAMES.filter(name => !shown.includes(name)), ['Stuck']);
    assertEqual(besideCard(null), null);
}

export function testAnErrorThatIsNewSaysWhereToLook() {
    const words = problemWords({name: 'org.gpuhandoff.Error.Novel', message: 'Something.'});
    assertEqual([words.title, words.text, words.remedy],
        ['It did not work', 'Something.', '“gpuhandoff history” in a terminal has the details.']);
}

export function testAnErrorOfTheBusIsReadAsTheServiceHasGivenIt() {
    const error = Gio.DBusError.new_for_dbus_error('org.gpuhandoff.Error.InUse', 'blender: has it open.');
    assertEqual(problemOf(error), {name: 'org.gpuhandoff.Error.InUse', message: 'blender: has it open.'});
    const denied = Gio.DBusError.new_for_dbus_error('org.freedesktop.DBus.Error.AccessDenied', 'No.');
    assertEqual(problemOf(denied), {name: 'org.freedesktop.DBus.Error.AccessDenied', message: 'No.'});
}

export function testAnErrorOfThisSideHasAName() {
    const late = new GLib.Error(Gio.IOErrorEnum, Gio.IOErrorEnum.TIMED_OUT, 'late');
    assertEqual(problemOf(late).name, 'org.freedesktop.DBus.Error.NoReply');
    assertEqual(problemOf(new TypeError('oops')), {name: '', message: 'oops'});
}

export function testHowAJobEnded() {
    assertEqual(outcomeOf({Result: 'done', ErrorName: '', ErrorMessage: ''}), null);
    assertEqual(outcomeOf({Result: ''}), null);
    assertEqual(outcomeOf({Result: 'stuck', ErrorName: 'org.gpuhandoff.Error.Stuck', ErrorMessage: 'Held.'}),
        {name: 'org.gpuhandoff.Error.Stuck', message: 'Held.'});
    assertEqual(outcomeOf({Result: 'rolled-back', ErrorName: 'org.gpuhandoff.Error.Unsupported', ErrorMessage: 'No module.'}),
        {name: 'org.gpuhandoff.Error.RolledBack', message: 'No module.'});
    assertEqual(outcomeOf({Result: 'failed'}).name, 'org.gpuhandoff.Error.Failed');
}

function holder(who, values = {}) {
    return {pid: 1, who, app: '', leaves: false, ...values};
}

export function testHolders() {
    assertEqual(holdersOf([]), {heading: 'No program uses it', lines: []});
    const {heading, lines} = holdersOf([holder('Firefox, in your session', {app: 'firefox'}), holder('Firefox, in your session', {pid: 2}), holder('logind')]);
    assertEqual(heading, '2 programs use it');
    assertEqual(lines.map(line => [line.text, line.app, line.pids]), [['Firefox, in your session', 'firefox', [1, 2]], ['Logind', '', [1]]]);
    assertEqual(holdersOf([holder('a')]).heading, '1 program uses it');
}

export function testManyHoldersAreCounted() {
    const {heading, lines} = holdersOf([...'abcdefghij'].map(who => holder(who)));
    assertEqual([heading, lines.length, lines[4].text], ['10 programs use it', 5, 'and 6 more']);
}

export function testASentenceIsFilledOnce() {
    assertEqual(fill('{a} and {b}, {c}', {a: '{b}', b: 1}), '{b} and 1, {c}');
}
