import QtQuick
import QtTest
import "/widget/contents/ui/bus.mjs" as Bus
import "/widget/contents/ui/plan.mjs" as Plan

// What the widget makes of the daemon's answers, without a daemon.
TestCase {
    name: "plan"

    function test_values_off_the_bus_are_plain() {
        compare(Bus.text(undefined), "");
        compare(Bus.text(new String("x")), "x");
        compare(Bus.number("", -1), -1);
        compare(Bus.number(new Number(3), -1), 3);
        compare(Bus.number("nonsense", 7), 7);
        verify(Bus.truth(true));
        verify(!Bus.truth(new Boolean(false)));
        verify(!Bus.truth(undefined));
        compare(Bus.texts({ length: 2, 0: new String("a"), 1: "b" }), ["a", "b"]);
        compare(Bus.texts(undefined), []);
    }

    function test_a_card_has_its_path() {
        compare(Bus.gpuPath("0000:01:00.0"), "/org/gpuhandoff/gpus/pci_0000_01_00_0");
    }

    function test_errors_are_told_apart() {
        compare(Bus.errorKind("org.gpuhandoff.Error.InUse"), "InUse");
        verify(Bus.isUnknown("org.freedesktop.DBus.Error.NoReply"));
        verify(!Bus.isUnknown("org.gpuhandoff.Error.TimedOut"));
        verify(Bus.isAbsent("org.freedesktop.DBus.Error.ServiceUnknown"));
        verify(Bus.isAbsent("org.freedesktop.DBus.Error.Spawn.ExecFailed"));
        verify(!Bus.isAbsent("org.gpuhandoff.Error.NotFound"));
    }

    function test_only_given_consents_are_sent_data() {
        return [
            { tag: "none", direction: "handoff", consents: {}, options: {} },
            { tag: "desktop", direction: "handoff", consents: { display: true, risk: false }, options: { "stop-display": true } },
            { tag: "risk", direction: "handoff", consents: { risk: true }, options: { "accept-risk": true } },
            { tag: "programs", direction: "handoff", consents: { holders: true }, options: { holders: "terminate" } },
            { tag: "back", direction: "reclaim", consents: { display: true, risk: true }, options: {} },
            { tag: "guest", direction: "reclaim", consents: { display: true, holders: true }, options: { holders: "terminate" } },
        ];
    }

    function test_only_given_consents_are_sent(data) {
        compare(Plan.options(data.direction, data.consents), data.options);
    }

    function test_a_move_is_answered_at_once_and_may_ask() {
        compare(Plan.beginning("handoff", {}), { wait: false, interactive: true });
    }

    function test_a_preview_that_says_little() {
        const plan = Plan.preview({ direction: "reclaim", steps: [] });
        compare(plan.seconds, -1);
        compare([plan.steps.length, plan.programs.length, plan.lost.length, plan.more], [0, 0, 0, 0]);
        compare([plan.risk, plan.desktop], [false, ""]);
        compare(plan.evicts, false);
    }

    function test_what_coming_back_means() {
        const undone = { step: "bind-vfio", does: "undo it" };
        const freed = { step: "release-functions", does: "give the functions back to their drivers" };
        const evict = "org.gpuhandoff.evict-guest";
        const preview = (steps, asks) => Plan.preview({ direction: "reclaim", steps: steps, asks: asks });
        compare([preview([undone], []).undoes, preview([undone, freed], []).undoes], [true, false]);
        compare([preview([undone], [evict]).evicts, preview([undone], ["org.gpuhandoff.reclaim"]).evicts], [true, false]);
    }

    function test_a_cost_is_told_once() {
        const steps = [{ costs: "no suspend" }, { costs: "" }, { costs: "no suspend" }, { costs: "text consoles" }];
        compare(Plan.costs({ steps: steps }), ["no suspend", "text consoles"]);
    }

    function test_programs_of_one_name_are_one_line() {
        const reply = [
            { who: "Firefox, in your session", app: "firefox", name: "firefox", leaves: false },
            { who: "Firefox, in your session", app: "firefox", name: "Web Content", leaves: false },
            { who: "", app: "", name: "arecord", leaves: true },
        ];
        compare(Plan.holders(reply).map(one => one.who), ["Firefox, in your session", "arecord"]);
    }

    function test_cards_are_called_as_people_call_them() {
        compare(Plan.shortName("NVIDIA AD104 [GeForce RTX 4070]"), "GeForce RTX 4070");
        compare(Plan.shortName("graphics card 10de:2786"), "graphics card 10de:2786");
    }

    function test_names_of_options_are_not_for_people() {
        compare(Plan.sentence("Close that first, or allow it to be ended with the option holders=terminate."), "Close that first, or allow it to be ended.");
        compare(Plan.sentence("Save your work, then allow it with the option stop-display."), "Save your work, then allow it.");
    }

    function test_an_icon_is_never_a_path_data() {
        return [
            { tag: "app", app: "org.kde.konsole.desktop", name: "konsole", icon: "org.kde.konsole" },
            { tag: "name", app: "", name: "Firefox", icon: "firefox" },
            { tag: "path", app: "/etc/passwd", name: "../x", icon: "" },
            { tag: "address", app: "http://x", name: "file:///y", icon: "" },
        ];
    }

    function test_an_icon_is_never_a_path(data) {
        compare(Plan.icon(data.app, data.name), data.icon);
    }

    function test_progress_goes_up_and_down() {
        compare(["apply", "done", "undo", "undone"].map(phase => Plan.share(phase, 4, 4)), [0.75, 1, 0, 0.25]);
        compare(Plan.share("undone", 1, 4), 1);
        compare(Plan.share("apply", 1, 0), 0);
        compare(Plan.share("later", 9, 4), 0);
    }

    function test_the_tray_shows_what_matters_most() {
        compare(Plan.foremost(["host", "guest"]), "guest");
        compare(Plan.foremost(["guest", "handing-off", "stuck"]), "stuck");
        compare(Plan.foremost([]), "");
    }

    function test_what_can_be_done_data() {
        return [
            { tag: "host", there: true, back: false, moving: false },
            { tag: "handing-off", there: false, back: false, moving: true },
            { tag: "detached", there: false, back: true, moving: false },
            { tag: "guest", there: false, back: true, moving: false },
            { tag: "reclaiming", there: false, back: false, moving: true },
            { tag: "foreign", there: false, back: true, moving: false },
            { tag: "stuck", there: false, back: true, moving: false },
        ];
    }

    function test_what_can_be_done(data) {
        compare([Plan.canHandOver(data.tag), Plan.canTakeBack(data.tag), Plan.isMoving(data.tag)], [data.there, data.back, data.moving]);
    }
}
