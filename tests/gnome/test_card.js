import {
    actionsOf, cardOf, detailsOf, foremost, glance, iconOf, isAway, isMoving, nameOf, whereInShort, whereIs
} from '../../clients/gnome-shell/logic/card.js';
import {assertEqual, assertTrue} from './assertions.js';

const STATES = ['host', 'handing-off', 'detached', 'guest', 'reclaiming', 'foreign', 'stuck'];

function card(values = {}) {
    return cardOf({Address: '0000:01:00.0', Name: 'NVIDIA AD104 [GeForce RTX 4070]', State: 'host', Driver: 'nvidia', ...values});
}

export function testACardIsCalledAsPeopleCallIt() {
    const called = values => nameOf(card(values), [card(values)]);
    assertEqual(called({}), 'GeForce RTX 4070');
    assertEqual(called({Name: 'Red Hat Virtio GPU'}), 'Red Hat Virtio GPU');
    assertEqual(called({Name: ''}), '0000:01:00.0');
}

export function testTwoCardsOfOneModelAreToldApart() {
    const cards = [card(), card({Address: '0001:02:00.0'}), card({Address: '0000:00:02.0', Name: 'UHD Graphics'})];
    assertEqual(cards.map(one => nameOf(one, cards)), ['GeForce RTX 4070 (01:00.0)', 'GeForce RTX 4070 (0001:02:00.0)', 'UHD Graphics']);
    const {spoken} = glance(true, [card(), card({Address: '0000:02:00.0', State: 'guest'})]);
    assertEqual(spoken, 'GeForce RTX 4070 (01:00.0): With this computer; GeForce RTX 4070 (02:00.0): With a virtual machine');
}

export function testEveryStateHasWordsAndAnIcon() {
    const words = STATES.map(state => whereIs(card({State: state})));
    assertEqual(words, [
        'With this computer', 'Going to a virtual machine', 'Ready for a virtual machine', 'With a virtual machine', 'Coming back', 'Moved by somebody else', 'Stuck',
    ]);
    const icons = new Set(STATES.map(state => iconOf(card({State: state}))));
    assertEqual(icons.size, 4);
    assertEqual(whereIs(card({State: 'somewhere-new'})), 'somewhere-new');
    assertEqual(iconOf(card({State: 'somewhere-new'})), 'gpuhandoff-trouble-symbolic');
}

export function testWordsForAToggleAreShort() {
    assertEqual(STATES.map(state => whereInShort(card({State: state}))),
        ['Here', 'Going', 'Ready', 'Lent', 'Coming back', 'Moved', 'Stuck']);
    assertEqual(whereInShort(card({State: 'guest', Vm: 'win11'})), 'With “win11”');
}

export function testACardWithADriverIsNotWithoutOne() {
    const words = ['', 'nvidia'].map(driver => card({State: 'foreign', Driver: driver})).map(one => [whereIs(one), whereInShort(one), detailsOf(one)]);
    assertEqual(words, [['Without its driver', 'No driver', 'No driver'], ['Moved by somebody else', 'Moved', 'Driver nvidia']]);
}

export function testTheMachineIsNamedWhereItIsKnown() {
    const words = ['handing-off', 'detached', 'guest'].map(state => whereIs(card({State: state, Vm: 'win11'})));
    assertEqual(words, ['Going to “win11”', 'Ready for “win11”', 'With “win11”']);
}

export function testANameWithBracesIsNotAPlaceholder() {
    assertEqual(whereIs(card({State: 'guest', Vm: '{driver}'})), 'With “{driver}”');
}

export function testDetails() {
    assertEqual(detailsOf(card()), 'Driver nvidia');
    assertEqual(detailsOf(card({Driver: '', Asleep: true})), 'No driver · asleep');
    assertEqual(detailsOf(card({Driver: 'vfio-pci', Owner: 'qemu-system-x86 (pid 421)'})), 'Driver vfio-pci · qemu-system-x86 (pid 421)');
}

export function testWhatCanBeDone() {
    const offered = STATES.map(state => {
        const actions = actionsOf(card({State: state, Job: '/org/gpuhandoff/jobs/1'}));
        return Object.keys(actions).filter(name => actions[name]).join();
    });
    assertEqual(offered, ['handoff', 'cancel', 'reclaim', 'reclaim', '', 'reclaim', 'reclaim']);
    assertEqual(actionsOf(card({State: 'handing-off'})).cancel, false);
}

export function testTheProcessorsGraphicsStayBesideACard() {
    const graphics = card({Integrated: true});
    assertEqual(actionsOf(graphics).handoff, false);
    assertEqual(actionsOf(graphics, true).handoff, true);
}

export function testTheCardThatNeedsAnEyeStandsForAll() {
    const cards = STATES.map(state => card({State: state}));
    assertEqual(foremost(cards).state, 'stuck');
    assertEqual(foremost([card({State: 'guest'}), card({State: 'reclaiming'})]).state, 'reclaiming');
    assertEqual(foremost([card({Integrated: true, Address: '0000:00:02.0'}), card()]).address, '0000:01:00.0');
    assertEqual(foremost([]), null);
}

export function testAtAGlance() {
    const home = glance(true, [card()]);
    assertEqual([home.subtitle, home.checked, home.spoken], ['Here', false, 'GeForce RTX 4070: With this computer']);
    const away = glance(true, [card(), card({State: 'guest', Vm: 'win11', Name: 'B', Address: '0000:02:00.0'})]);
    assertEqual([away.subtitle, away.checked], ['With “win11”', true]);
    assertEqual(away.spoken, 'GeForce RTX 4070: With this computer; B: With “win11”');
    assertEqual(glance(true, []).subtitle, 'No card');
    assertEqual(glance(false, [card()]).subtitle, 'Not running');
    assertEqual(glance(false, []).checked, false);
}

export function testMovingAndAway() {
    assertEqual(STATES.filter(state => isMoving(card({State: state}))), ['handing-off', 'reclaiming']);
    assertEqual(STATES.filter(state => !isAway(card({State: state}))), ['host']);
}

export function testNothingIsKnownOfACardAtFirst() {
    const empty = cardOf({Address: '0000:01:00.0'});
    assertEqual([empty.state, empty.job, whereIs(empty), detailsOf(empty)], ['', '/', '', 'No driver']);
    assertTrue(Object.isFrozen(empty), 'a card is a value');
}
