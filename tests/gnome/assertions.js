/** What tests say. */

/**
 * @param {*} found - what there is
 * @param {*} expected - what there should be
 */
export function assertEqual(found, expected) {
    const [left, right] = [JSON.stringify(found), JSON.stringify(expected)];
    if (left !== right)
        throw new Error(`found    ${left}\nexpected ${right}`);
}

/**
 * @param {*} value - that should be true
 * @param {string} what - it means
 */
export function assertTrue(value, what) {
    if (!value)
        throw new Error(what);
}

/**
 * @param {Promise} promise - that should be rejected
 * @returns {Promise<Error>} the error
 */
export async function assertRejects(promise) {
    let value;
    try {
        value = await promise;
    } catch (error) {
        return error;
    }
    throw new Error(`no error, but ${JSON.stringify(value)}`);
}
