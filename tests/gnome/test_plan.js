import {consentFor, firstOptions, obstacle, withoutOption} from '../../clients/gnome-shell/logic/consent.js';
import * as Plan from '../../clients/gnome-shell/logic/plan.js';
import {joined, progressOf, secondsWords, signalled, stepWords} from '../../clients/gnome-shell/logic/steps.js';
import {verdictWords} from '../../clients/gnome-shell/logic/verdict.js';
import {assertEqual} from './assertions.js';

function step(name, values = {}) {
    return {step: name, does: 'does it', costs: '', undo: '', seconds: -1, arguments: '{}', ...values};
}

function preview(values = {}) {
    return {
        'gpu': '0000:01:00.0', 'name': 'NVIDIA AD104 [GeForce RTX 4070]', 'direction': 'handoff',
        'steps': [step('inhibit-sleep', {costs: 'no suspend until the GPU is back'}), step('bind-vfio')],
        'seconds': -1, 'asks': ['org.gpuhandoff.handoff'], 'desktop': 'It stays.',
        'reset-verdict': 'safe', 'reset-reason': 'It did.', 'reset-source': 'this machine', 'reset-risk': false, 'needed': false,
        'sessions': [], 'programs': [], 'more-programs': 0, 'lost': [], 'ended': [],
        ...values,
    };
}

function planOf(shown, cards = []) {
    return Plan.planOf(shown, cards);
}

export function testThePlanNamesTheCardAndNoOther() {
    const other = {name: 'NVIDIA AD104 [GeForce RTX 4070]', address: '0000:02:00.0'};
    assertEqual(planOf(preview(), [other]).title, 'Hand over GeForce RTX 4070 (01:00.0)?');
    assertEqual(planOf(preview({direction: 'reclaim'}), [other]).title, 'Take back GeForce RTX 4070 (01:00.0)?');
}

export function testTheDesktopStays() {
    const plan = planOf(preview());
    assertEqual(plan.title, 'Hand over GeForce RTX 4070?');
    assertEqual(plan.lead, 'Your desktop stays. It was never done here, so nobody knows how long it takes.');
    assertEqual(plan.losses, ['No suspend until the GPU is back']);
    assertEqual(plan.steps.map(one => one.text), ['Keep the machine awake', 'Give the card to vfio-pci']);
    assertEqual([plan.confirm, plan.grave, plan.note], ['Hand Over', false, '']);
    assertEqual(plan.verdict, {line: 'Comes back from a virtual machine', because: 'It did. (says this machine)', warning: false});
}

export function testTheDesktopEnds() {
    const plan = planOf(preview({
        'steps': [step('stop-display', {costs: 'the desktop of alice and every program in it', seconds: 1.25}), step('unbind-consoles', {costs: 'text consoles'})],
        'seconds': 12.4, 'asks': ['org.gpuhandoff.handoff-display'], 'sessions': ['alice on seat0', 'alice on seat0'],
        'programs': ['Firefox', 'Steam'], 'more-programs': 3, 'lost': ['unsaved documents: programs are ended, some without asking'],
    }));
    assertEqual(plan.lead, 'The desktop of alice ends. Save your work first. It usually takes 12 s here.');
    assertEqual(plan.losses, [
        'These programs end: Firefox, Steam and 3 more',
        'Unsaved documents: programs are ended, some without asking',
        'Text consoles',
    ]);
    assertEqual(plan.steps[0], {text: 'End the desktop', seconds: '1.3 s'});
    assertEqual([plan.confirm, plan.grave, plan.note], ['End Desktop and Hand Over', true, 'You will be asked for a password.']);
}

export function testOnlyALoginScreenGoes() {
    const plan = planOf(preview({steps: [step('stop-display', {costs: 'the login screen'})]}));
    assertEqual(plan.lead.startsWith('The login screen goes dark until the card is back.'), true);
    assertEqual(plan.losses, ['The login screen']);
}

export function testProgramsAreEnded() {
    const plan = planOf(preview({
        steps: [step('settle-holders', {costs: 'blender (pid 7) will be ended'})],
        ended: ['Blender, in your session'], asks: ['org.gpuhandoff.handoff', 'org.gpuhandoff.terminate-holders'],
    }));
    assertEqual(plan.losses, ['This program is ended: Blender, in your session']);
    assertEqual([plan.confirm, plan.grave, plan.note], ['End Programs and Hand Over', true, 'You will be asked for a password.']);
}

export function testTheWayBack() {
    const steps = [step('bind-vfio', {does: 'undo it', seconds: 0.2}), step('stop-display', {does: 'undo it'})];
    const plan = planOf(preview({direction: 'reclaim', steps, seconds: 0.2, asks: ['org.gpuhandoff.reclaim']}));
    assertEqual(plan.title, 'Take back GeForce RTX 4070?');
    assertEqual(plan.lead, 'The card goes back to its driver on this computer. It usually takes 0.2 s here.');
    assertEqual(plan.steps.map(one => one.text), ['Take the card from vfio-pci', 'Start the desktop']);
    assertEqual([plan.losses, plan.verdict, plan.confirm, plan.grave], [[], null, 'Take Back', false]);
}

export function testTheWayBackFromSomebodyElse() {
    const plan = planOf(preview({direction: 'reclaim', steps: [step('release-functions')]}));
    assertEqual(plan.steps[0].text, 'Give the card to its driver');
}

export function testAMachineIsEnded() {
    const plan = planOf(preview({direction: 'reclaim', asks: ['org.gpuhandoff.reclaim', 'org.gpuhandoff.evict-guest']}));
    assertEqual([plan.confirm, plan.grave], ['End the Machine and Take Back', true]);
    assertEqual(plan.lead.startsWith('The virtual machine that still runs on it is ended.'), true);
}

export function testAskingCostsNothing() {
    assertEqual(firstOptions({drivesDisplay: true}, 'handoff'), {'stop-display': true});
    assertEqual(firstOptions({drivesDisplay: false}, 'handoff'), {});
    assertEqual(firstOptions({drivesDisplay: true}, 'reclaim'), {});
}

export function testConsentIsOfferedForWhatTheServiceNames() {
    const offered = (message, direction = 'handoff') => {
        const consent = consentFor({name: 'x', message}, direction);
        return consent && [consent.option, consent.value, consent.label];
    };
    const terminate = 'It is in use by blender (pid 7). Close that first, or allow it to be ended with the option holders=terminate.';
    assertEqual(offered(terminate), ['holders', 'terminate', 'End Them…']);
    assertEqual(offered(terminate, 'reclaim'), ['holders', 'terminate', 'End the Machine…']);
    assertEqual(offered('Accept it with the option accept-risk.'), ['accept-risk', true, 'Accept the Risk']);
    assertEqual(offered('Allow it with the option stop-display.'), ['stop-display', true, 'End the Desktop…']);
    assertEqual(offered('Try it with the option hugepages=none.'), null);
    assertEqual(offered('The IOMMU is off.'), null);
    assertEqual(withoutOption(terminate), 'It is in use by blender (pid 7). Close that first, or allow it to be ended.');
}

export function testAGuestThatStillRunsIsAnObstacle() {
    const guest = {state: 'guest', owner: 'qemu-system-x86 (pid 421)'};
    const found = obstacle(guest, 'reclaim', {});
    assertEqual([found.text, found.consent.option, found.consent.value], ['qemu-system-x86 (pid 421) has the card open.', 'holders', 'terminate']);
    assertEqual(obstacle({...guest, owner: ''}, 'reclaim', {}).text, '');
    assertEqual(obstacle(guest, 'reclaim', {holders: 'terminate'}), null);
    assertEqual(obstacle({...guest, state: 'detached'}, 'reclaim', {}), null);
}

export function testAStepThatIsNewIsNamed() {
    assertEqual([stepWords('bind-vfio'), stepWords('bind-vfio', true), stepWords('mend-cable')],
        ['Give the card to vfio-pci', 'Take the card from vfio-pci', 'mend-cable']);
}

export function testProgress() {
    assertEqual(progressOf({step: '', fraction: 0}), {fraction: 0, text: 'Starting…'});
    assertEqual(progressOf({step: 'load-vfio', phase: 'apply', index: 2, count: 8, fraction: 0.125}),
        {fraction: 0.125, text: 'Load vfio-pci (2 of 8)'});
    assertEqual(progressOf({step: 'load-vfio', phase: 'undo', index: 2, count: 8, fraction: 0.9}).text, 'Unload vfio-pci (2 of 8)');
    assertEqual(progressOf({step: 'load-vfio', phase: 'apply', index: 0, count: 0, fraction: 7}), {fraction: 1, text: 'Load vfio-pci'});
}

export function testProgressRisesThereAndBack() {
    const told = (...phases) => phases.map(([phase, index]) => signalled('load-vfio', phase, index, 4).fraction);
    assertEqual(told(['apply', 1], ['done', 1], ['apply', 4], ['done', 4]), [0, 0.25, 0.75, 1]);
    assertEqual(told(['undo', 4], ['undone', 4], ['undo', 1], ['undone', 1]), [0, 0.25, 0.75, 1]);
    assertEqual([signalled('load-vfio', 'later', 1, 4).fraction, signalled('load-vfio', 'apply', 1, 0).fraction], [0, 0]);
}

export function testAMoveThatIsJoinedMidway() {
    const seen = (Operation, state, Step = 'unload-driver') => {
        const progress = joined({Operation, Step, Progress: 0.5}, {state});
        return [progressOf(progress).text, progress.fraction];
    };
    assertEqual(seen('handoff', 'handing-off'), ['Unload the driver', 0.5]);
    assertEqual(seen('handoff', 'reclaiming'), ['Load the driver', 0.5]);
    assertEqual(seen('reclaim', 'reclaiming'), ['Load the driver', 0.5]);
    assertEqual(seen('reclaim', 'reclaiming', 'release-functions'), ['Give the card to its driver', 0.5]);
}

export function testSeconds() {
    assertEqual([0.04, 9.94, 9.96, 75].map(secondsWords), ['0.0 s', '9.9 s', '10 s', '75 s']);
}

export function testVerdicts() {
    const words = kind => verdictWords({kind, reason: 'So it is.', source: '', risk: false, needed: true});
    assertEqual(['safe', 'unknown', 'caution', 'needs vendor-reset', 'once per boot', 'broken'].map(kind => words(kind).warning),
        [false, false, true, true, true, true]);
    assertEqual(words('broken').because, 'So it is.');
    assertEqual(words('brand new').line, 'brand new');
    assertEqual(words(''), null);
    assertEqual(verdictWords({kind: 'caution', reason: '', source: '', risk: false, needed: false}).warning, false);
    assertEqual(verdictWords({kind: 'caution', reason: '', source: '', risk: true, needed: false}).warning, true);
}
