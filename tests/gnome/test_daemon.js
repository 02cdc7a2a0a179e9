import Gio from 'gi://Gio';
import GLib from 'gi://GLib';

import {Daemon} from '../../clients/gnome-shell/bus/daemon.js';
import {isCancelled, problemOf} from '../../clients/gnome-shell/bus/promises.js';
import {nameOf, whereIs} from '../../clients/gnome-shell/logic/card.js';
import {consentFor, firstOptions, obstacle} from '../../clients/gnome-shell/logic/consent.js';
import {holdersOf} from '../../clients/gnome-shell/logic/holder.js';
import {planOf} from '../../clients/gnome-shell/logic/plan.js';
import {progressOf} from '../../clients/gnome-shell/logic/steps.js';
import {assertEqual, assertRejects, assertTrue} from './assertions.js';
import {CARD, matchRules, onStage} from './service.js';

const STOPPING = {'stop-display': true};

function hold(target) {
    return new GLib.Variant('(s)', [target]);
}

export async function testThereAndBack() {
    await onStage('single-nvidia', async stage => {
        const {card} = await stage.until('host');
        assertEqual([card.driver, card.drivesDisplay, card.verdict.kind], ['nvidia', true, 'safe']);
        const steps = new Set();
        const note = stage.watcher.changed.bind(stage.watcher);
        stage.watcher.changed = () => {
            const {progress} = stage.tracked() ?? {};
            if (progress?.phase === 'done')
                steps.add(progressOf(progress).text);
            note();
        };
        await stage.daemon.move(CARD, 'handoff', {...STOPPING, vm: 'win11'});
        await stage.until('detached');
        assertEqual(whereIs(stage.tracked().card), 'Ready for “win11”');
        assertTrue(steps.has('End the desktop (3 of 9)'), `seen: ${[...steps].join(', ')}`);
        assertTrue(steps.has('Give the card to vfio-pci (9 of 9)'), `seen: ${[...steps].join(', ')}`);
        await stage.simulate('StartGuest', new GLib.Variant('(s)', [CARD]));
        await stage.until('guest');
        await stage.simulate('StopGuest', new GLib.Variant('(s)', [CARD]));
        await stage.until('detached');
        await stage.daemon.move(CARD, 'reclaim', {});
        await stage.until('host');
        await stage.watcher.until(() => stage.ended.length === 2, 'both jobs have ended');
        assertEqual(stage.ended.map(one => [one.operation, one.problem]), [['handoff', null], ['reclaim', null]]);
        assertEqual(stage.tracked().problem, null);
    });
}

export async function testThePlanIsThatOfTheService() {
    await onStage('single-nvidia', async stage => {
        const {card} = await stage.until('host');
        const preview = await stage.daemon.preview(CARD, 'handoff', firstOptions(card, 'handoff'), new Gio.Cancellable());
        const plan = planOf(preview, stage.daemon.cards);
        assertEqual(plan.title, 'Hand over GeForce RTX 4070?');
        assertTrue(plan.lead.startsWith('The desktop of alice ends. Save your work first.'), plan.lead);
        assertTrue(plan.losses.includes('These programs end: Firefox'), plan.losses.join('\n'));
        assertEqual([plan.steps.length, plan.steps[8].text, plan.confirm], [9, 'Give the card to vfio-pci', 'End Desktop and Hand Over']);
    });
}

export async function testTwinsAreToldApart() {
    await onStage('twin', async stage => {
        await stage.until('host');
        await stage.watcher.until(() => stage.daemon.cards.length > 1, 'the other one is known');
        const {cards} = stage.daemon;
        const names = cards.map(one => nameOf(one, cards));
        assertEqual(names, ['GeForce RTX 3060 Lite Hash Rate (01:00.0)', 'GeForce RTX 3060 Lite Hash Rate (02:00.0)']);
        const plan = planOf(await stage.daemon.preview(CARD, 'handoff', STOPPING, new Gio.Cancellable()), cards);
        assertEqual(plan.title, `Hand over ${names[0]}?`);
    });
}

export async function testARefusalNamesWhoAndWhatToDo() {
    await onStage('igpu-dgpu', async stage => {
        await stage.until('host');
        await stage.simulate('Open', new GLib.Variant('(sis)', ['blender', 1000, '/dev/nvidia0']));
        const error = await assertRejects(stage.daemon.preview(CARD, 'handoff', {}, new Gio.Cancellable()));
        const problem = problemOf(error);
        assertEqual(problem.name, 'org.gpuhandoff.Error.InUse');
        assertTrue(problem.message.includes('blender'), problem.message);
        const consent = consentFor(problem, 'handoff');
        const plan = planOf(await stage.daemon.preview(CARD, 'handoff', {[consent.option]: consent.value}, new Gio.Cancellable()), stage.daemon.cards);
        assertTrue(plan.losses.some(loss => loss.includes('Blender')), plan.losses.join('\n'));
        const holders = holdersOf(await stage.daemon.holders(CARD, new Gio.Cancellable()));
        assertTrue(holders.lines.some(line => line.text.startsWith('Blender')), JSON.stringify(holders));
    });
}

export async function testAGuestIsNotEndedUnasked() {
    await onStage('igpu-dgpu', async stage => {
        await stage.until('host');
        await stage.daemon.move(CARD, 'handoff', {});
        await stage.until('detached');
        await stage.simulate('StartGuest', new GLib.Variant('(s)', [CARD]));
        await stage.until('guest');
        const known = obstacle(stage.tracked().card, 'reclaim', {});
        assertTrue(known.text.startsWith('qemu-system-x86 (pid '), known.text);
        await stage.daemon.move(CARD, 'reclaim', {});
        await stage.watcher.until(() => stage.tracked().problem, 'the problem is told');
        const {problem} = stage.tracked();
        const consent = consentFor(problem, 'reclaim');
        assertEqual([problem.name, consent], ['org.gpuhandoff.Error.InUse', known.consent]);
        const plan = planOf(await stage.daemon.preview(CARD, 'reclaim', {holders: 'terminate'}, new Gio.Cancellable()), stage.daemon.cards);
        assertEqual([plan.confirm, plan.grave], ['End the Machine and Take Back', true]);
    });
}

export async function testAStepThatFailsIsToldAndUndone() {
    await onStage('single-nvidia', async stage => {
        await stage.until('host');
        await stage.simulate('Refuse', hold('vfio_pci'));
        await stage.daemon.move(CARD, 'handoff', STOPPING);
        await stage.watcher.until(() => stage.tracked().problem, 'the problem is told');
        assertEqual(stage.tracked().problem.name, 'org.gpuhandoff.Error.RolledBack');
        await stage.until('host');
        await stage.simulate('Heal', null);
        // The next move forgets it.
        await stage.daemon.move(CARD, 'handoff', STOPPING);
        await stage.until('detached');
        assertEqual(stage.tracked().problem, null);
    });
}

export async function testAHandoffIsCancelled() {
    await onStage('single-nvidia', async stage => {
        await stage.until('host');
        await stage.simulate('Hold', hold('StopUnit'));
        await stage.daemon.move(CARD, 'handoff', STOPPING);
        await stage.until('handing-off');
        await stage.watcher.until(() => stage.tracked().progress?.step === 'stop-display', 'the step is shown');
        await stage.daemon.cancel(stage.tracked().card.job);
        await stage.simulate('Heal', null);
        await stage.watcher.until(() => stage.ended.length, 'the job has ended');
        assertEqual(stage.ended[0].problem?.name, 'org.gpuhandoff.Error.Cancelled');
        await stage.until('host');
    });
}

export async function testAMoveThatWasUnderWayIsJoined() {
    await onStage('single-nvidia', async stage => {
        await stage.until('host');
        await stage.simulate('Hold', hold('StopUnit'));
        await stage.daemon.move(CARD, 'handoff', STOPPING);
        await stage.watcher.until(() => stage.tracked().progress?.step === 'stop-display', 'the step is shown');
        stage.daemon.stop();
        const second = new Daemon(stage.bus, {changed: () => stage.watcher.changed(), ended: () => {}});
        stage.daemon = second;
        await second.start();
        await stage.watcher.until(() => stage.tracked()?.progress?.step === 'stop-display', 'who comes later sees it as well');
        await stage.simulate('Heal', null);
        await stage.until('detached');
    });
}

/**
 * Join a move that starts services again, and see it to its end.
 *
 * @param {Stage} stage - with a card that is coming back
 */
async function joinTheWayBack(stage) {
    const isHeld = () => stage.tracked().progress?.phase === 'undo' && stage.tracked().progress.step === 'stop-gpu-services';
    await stage.watcher.until(isHeld, 'it comes back');
    stage.daemon.stop();
    const fractions = [];
    const note = () => {
        const {progress} = stage.tracked() ?? {};
        if (progress)
            fractions.push(Math.round(progress.fraction * 100));
        stage.watcher.changed();
    };
    stage.daemon = new Daemon(stage.bus, {changed: note, ended: () => {}});
    await stage.daemon.start();
    await stage.watcher.until(() => stage.tracked()?.progress, 'who comes later sees it as well');
    assertEqual(progressOf(stage.tracked().progress).text, 'Start services of the card');
    await stage.simulate('Heal', null);
    await stage.until('host');
    assertTrue(new Set(fractions).size > 2, fractions.join());
    assertEqual(fractions, [...fractions].sort((a, b) => a - b));
}

export async function testAWayBackThatWasUnderWayIsJoined() {
    await onStage('single-nvidia', async stage => {
        await stage.until('host');
        await stage.daemon.move(CARD, 'handoff', STOPPING);
        await stage.until('detached');
        await stage.simulate('Hold', hold('StartUnit'));
        await stage.daemon.move(CARD, 'reclaim', {});
        await joinTheWayBack(stage);
    });
}

export async function testAHandoffThatIsUndoneIsJoined() {
    await onStage('single-nvidia', async stage => {
        await stage.until('host');
        await stage.simulate('Refuse', hold('/snd_hda_intel/unbind'));
        await stage.simulate('Hold', hold('StartUnit'));
        await stage.daemon.move(CARD, 'handoff', STOPPING);
        await joinTheWayBack(stage);
    });
}

export async function testAServiceThatDoesNotRun() {
    await onStage('', async stage => {
        assertEqual([stage.daemon.running, stage.daemon.cards], [false, []]);
        const problem = problemOf(await assertRejects(stage.daemon.wake()));
        assertEqual(problem.name, 'org.freedesktop.DBus.Error.ServiceUnknown');
        const other = problemOf(await assertRejects(stage.daemon.holders(CARD, new Gio.Cancellable())));
        assertEqual(other.name, 'org.freedesktop.DBus.Error.NameHasNoOwner');
    });
}

export async function testAServiceThatComesAndGoesAndDies() {
    await onStage('', async stage => {
        await stage.startService('igpu-dgpu');
        await stage.until('host');
        assertEqual(stage.daemon.cards.map(card => [card.address, card.integrated]), [[CARD, false], ['0000:00:02.0', true]]);
        await stage.endService();
        await stage.watcher.until(() => !stage.daemon.running, 'it is gone');
        assertEqual(stage.daemon.cards, []);
        await stage.startService('single-amd');
        await stage.until('host');
        assertEqual(stage.daemon.cards.length, 1);
        await stage.endService(true);
        await stage.watcher.until(() => !stage.daemon.running, 'it was killed');
        assertEqual(stage.daemon.cards, []);
    });
}

export async function testAServiceThatDiesInTheMiddle() {
    await onStage('single-nvidia', async stage => {
        await stage.until('host');
        await stage.simulate('Hold', hold('StopUnit'));
        await stage.daemon.move(CARD, 'handoff', STOPPING);
        await stage.until('handing-off');
        await stage.endService(true);
        await stage.watcher.until(() => !stage.daemon.running, 'it was killed');
        assertEqual(stage.tracked(), null);
    });
}

export async function testNobodyWhoMayNot() {
    const denied = ['org.gpuhandoff.inspect', 'org.gpuhandoff.handoff-display', 'org.gpuhandoff.handoff-others'];
    await onStage('', async stage => {
        await stage.startService('single-nvidia', ...denied.flatMap(action => ['--simulate-deny', action]));
        await stage.until('host');
        const problem = problemOf(await assertRejects(stage.daemon.move(CARD, 'handoff', STOPPING)));
        assertEqual(problem.name, 'org.freedesktop.DBus.Error.AccessDenied');
        const holders = problemOf(await assertRejects(stage.daemon.holders(CARD, new Gio.Cancellable())));
        assertEqual(holders.name, 'org.freedesktop.DBus.Error.AccessDenied');
    });
}

export async function testWhatIsNotWantedAnyMoreIsNotToldOf() {
    await onStage('single-nvidia', async stage => {
        await stage.until('host');
        const cancellable = new Gio.Cancellable();
        const answer = stage.daemon.preview(CARD, 'handoff', STOPPING, cancellable);
        cancellable.cancel();
        assertTrue(isCancelled(await assertRejects(answer)), 'it ends as cancelled');
    });
}

export async function testNothingIsLeftOnTheBus() {
    await onStage('twin', async stage => {
        await stage.until('host');
        const before = await matchRules();
        assertTrue(before > 0, 'it listens');
        const {calls} = stage.watcher;
        stage.daemon.stop();
        assertEqual(await matchRules(), 0);
        assertEqual(stage.watcher.calls, calls);
    });
}

export async function testNothingIsLeftOfOneThatStopsBeforeItHasBegun() {
    await onStage('twin', async stage => {
        await stage.until('host');
        stage.daemon.stop();
        for (let i = 0; i < 20; i++) {
            const daemon = new Daemon(stage.bus, {changed: () => stage.watcher.changed(), ended: () => {}});
            const started = daemon.start();
            daemon.stop();
            // eslint-disable-next-line no-await-in-loop -- one after another, as a person does
            assertTrue(isCancelled(await assertRejects(started)), 'it ends as cancelled');
        }
        const last = new Daemon(stage.bus, {changed: () => {}, ended: () => {}});
        await last.start();
        // Its cards are not open yet.
        last.stop();
        assertEqual(await matchRules(), 0);
    });
}
