import Gettext from 'gettext';
import GLib from 'gi://GLib';

import {cardOf, glance, whereIs} from '../../clients/gnome-shell/logic/card.js';
import {holdersOf} from '../../clients/gnome-shell/logic/holder.js';
import {problemWords} from '../../clients/gnome-shell/logic/problem.js';
import {progressOf} from '../../clients/gnome-shell/logic/steps.js';
import {_, DOMAIN} from '../../clients/gnome-shell/logic/translation.js';
import {assertEqual, assertTrue} from './assertions.js';

Gettext.setlocale(Gettext.LocaleCategory.ALL, '');
Gettext.bindtextdomain(DOMAIN, GLib.getenv('GPUHANDOFF_LOCALE'));

const EXPECTED = {
    de: {
        guest: 'Bei „win11“', step: 'Den Treiber entladen (2 von 8)', one: '1 Programm benutzt sie', two: '2 Programme benutzen sie',
        remedy: 'Schließen Sie, was genannt ist, und versuchen Sie es noch einmal.',
    },
    zh_CN: {
        guest: '由“win11”使用', step: '卸载驱动（第 2 步，共 8 步）', one: '1 个程序在使用', two: '2 个程序在使用',
        remedy: '请关闭上面提到的程序，然后重试。',
    },
};

export function testAPersonReadsTheirOwnLanguage() {
    const found = {
        guest: whereIs(cardOf({State: 'guest', Vm: 'win11'})),
        step: progressOf({step: 'unload-driver', phase: 'apply', index: 2, count: 8, fraction: 0}).text,
        one: holdersOf([{who: 'a', pid: 1}]).heading,
        two: holdersOf([{who: 'a', pid: 1}, {who: 'b', pid: 2}]).heading,
        remedy: problemWords({name: 'org.gpuhandoff.Error.InUse', message: ''}).remedy,
    };
    assertEqual(found, EXPECTED[GLib.getenv('LANGUAGE')]);
}

export function testTheHeadOfTheCatalogueIsNoText() {
    assertEqual(_(''), '');
    assertTrue(!glance(false, []).subtitle.includes('Plural-Forms'), 'an empty text stays empty');
}
