/**
 * One card as the service shows it, with the job that is at work on it and how the last one ended.
 */
import Gio from 'gi://Gio';

import {cardOf, isMoving} from '../logic/card.js';
import {outcomeOf} from '../logic/problem.js';
import {joined, signalled} from '../logic/steps.js';
import {GPU, JOB, NO_JOB, gpuPath} from './names.js';
import {RemoteObject} from './properties.js';
import {isCancelled} from './promises.js';

export class TrackedCard {
    /**
     * @param {Gio.DBusConnection} connection - the system bus
     * @param {string} address - PCI address
     * @param {object} told - changed(): something to show has changed; ended(card, operation, problem): a job has ended
     */
    constructor(connection, address, told) {
        this.address = address;
        this.path = gpuPath(address);
        this.card = cardOf({Address: address});
        this.progress = null;
        this.problem = null;
        this._connection = connection;
        this._told = told;
        this._cancellable = new Gio.Cancellable();
        this._object = null;
        this._jobPath = NO_JOB;
        this._job = null;
    }

    /** Fetch the card's properties and follow them. */
    async open() {
        const object = await RemoteObject.open(this._connection, this.path, GPU, this._cancellable, () => this._read());
        if (this._cancellable.is_cancelled()) {
            object.close();
            return;
        }
        this._object = object;
        this._read();
    }

    /**
     * @param {string} step - at work
     * @param {string} phase - apply, done, undo or undone
     * @param {number} index - of the step, from 1
     * @param {number} count - of steps
     */
    onProgress(step, phase, index, count) {
        this.progress = signalled(step, phase, index, count);
        this._told.changed();
    }

    /**
     * @param {?object} problem - an error that a request met, or null to forget the last
     */
    setProblem(problem) {
        this.problem = problem;
        this._told.changed();
    }

    /**
     * Follow a job to its end; the one that is followed already stays.
     *
     * @param {string} path - of the job's object
     */
    async follow(path) {
        if (path === NO_JOB || path === this._jobPath)
            return;
        this._leaveJob();
        this._jobPath = path;
        this.problem = null;
        this.progress = null;
        try {
            const job = await RemoteObject.open(this._connection, path, JOB, this._cancellable, () => this._readJob());
            if (path !== this._jobPath || this._cancellable.is_cancelled()) {
                job.close();
                return;
            }
            this._job = job;
            this._readJob();
        } catch (error) {
            if (!isCancelled(error))
                console.debug(`gpuhandoff: the job ${path} cannot be read: ${error.message}`);
        }
    }

    /** Leave nothing behind. */
    close() {
        this._cancellable.cancel();
        this._leaveJob();
        this._object?.close();
        this._object = null;
    }

    _read() {
        this.card = cardOf(this._object.properties);
        if (!isMoving(this.card))
            this.progress = null;
        this._join();
        this.follow(this.card.job);
        this._told.changed();
    }

    _readJob() {
        const job = this._job.properties;
        if (job.Result) {
            this.problem = outcomeOf(job);
            this._leaveJob();
            this._told.ended(this.card, job.Operation, this.problem);
        }
        this._join();
        this._told.changed();
    }

    /** Until the first signal the properties tell what there is, and the card's may come after the job's. */
    _join() {
        const job = this._job?.properties;
        if (job?.Step && isMoving(this.card) && !this.progress?.count)
            this.progress = joined(job, this.card);
    }

    _leaveJob() {
        this._job?.close();
        this._job = null;
    }
}
