/**
 * Runs the tests of one file, or one of them: gjs -m run.js FILE [NAME]. A line a test; exits with 1 where one fails.
 */
import Gio from 'gi://Gio';
import System from 'system';

const [file, only] = ARGV;
let failed = 0;

async function runAll() {
    const tests = await import(Gio.File.new_for_path(file).get_uri());
    for (const [name, test] of Object.entries(tests)) {
        if (!name.startsWith('test') || (only && name !== only))
            continue;
        try {
            // eslint-disable-next-line no-await-in-loop -- one after another, as they share a bus
            await test();
            print(`ok ${name}`);
        } catch (error) {
            failed += 1;
            print(`not ok ${name}\n${error}\n${error.stack}`);
        }
    }
}

try {
    await runAll();
} catch (error) {
    failed += 1;
    printerr(`${error}\n${error.stack}`);
}
System.exit(failed ? 1 : 0);
