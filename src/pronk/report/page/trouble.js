/** What is answered in the place of an answer: what is wrong, and what to do. */

export class ServerError extends Error {
    constructor(message, { hint = "", code = "internal", status = 0 } = {}) {
        super(message);
        Object.assign(this, { hint, code, status });
    }

    /** Whether the same question may go better later. */
    get passing() {
        return ["offline", "busy", "slow", "internal", "not_ready"].includes(this.code);
    }
}
