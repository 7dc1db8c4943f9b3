/**
 * Brings positions to the service: one request at a time, the newest position only.
 *
 * A position that has just been reached goes as a *live* heartbeat, which the server orders by its arrival. One that had to
 * wait, for whatever reason, goes as an item of a batch with its time: it can't come in after something newer and undo
 * it, as a late heartbeat of a paused device would. Batches hold all titles of this viewer that wait, at most 100 at a
 * time, from one tab at a time.
 *
 * **The promise.** No two requests that were not aborted. Nothing is dropped until it is acknowledged, but what the
 * service refuses for good; of a batch that is refused only the items that its pointers name.
 */
import { decide } from "./retry.js";
/** The age up to which a position counts as being reached just now. */
const FRESH_MS = 1_000;
const TIME_LIMIT_MS = 4_000;
const BATCH_ITEMS = 100;
export function sender({ now, random, setTimeout, clearTimeout, locks }, request, outbox, emit, lock) {
    /** The newest position of this page that is not acknowledged. */
    let newest;
    /** Something waits in the outbox, after a failure or from an earlier page. */
    let isBehind = false;
    let current;
    let running = Promise.resolve();
    let pause;
    let attempt = 0;
    let isClosed = false;
    /** Begins to send, unless that is under way or must wait. */
    function start() {
        if (!current && !pause && !isClosed)
            running = run();
        return running;
    }
    function endPause() {
        clearTimeout(pause);
        pause = undefined;
    }
    async function run(hidden) {
        const mine = (current = { abort: new AbortController() });
        do {
            const entry = (mine.carries = newest);
            if (!entry && !isBehind)
                break;
            const isLive = !isBehind && now() - entry.time < FRESH_MS;
            const goesOn = isLive || hidden ? send([entry], !isLive, mine.abort) : late(mine.abort);
            hidden = undefined;
            if (!(await goesOn))
                break;
        } while (current === mine && !isClosed);
        if (current === mine)
            current = undefined;
    }
    /** All that waits, in its turn among the tabs. A tab whose turn it is not sends its own newest position. */
    function late(abort) {
        const all = async (turn) => {
            const waiting = turn ? outbox.waiting() : [];
            if (newest && !waiting.some(({ movieId }) => movieId === newest.movieId))
                waiting.push(newest);
            isBehind = waiting.length > BATCH_ITEMS;
            return !waiting.length || send(waiting.slice(0, BATCH_ITEMS), true, abort);
        };
        return locks ? locks.request(lock, { ifAvailable: true }, all).catch(() => all(true)) : all(true);
    }
    /** One request; says whether to go on with what else there is. */
    async function send(entries, isLate, abort) {
        const sent_at_ms = now();
        const items = entries.map(({ movieId, position, duration, time }) => ({
            movie_id: movieId,
            position_seconds: position,
            duration_seconds: duration,
            // The clock may have been set back meanwhile; then it happened now.
            event_time_ms: isLate ? Math.min(time, sent_at_ms) : undefined,
        }));
        const body = isLate ? { sent_at_ms, items } : items[0];
        const { status, retryAfterSeconds, json } = await request(isLate ? "/batch" : "", body, TIME_LIMIT_MS, abort);
        // Aborted by a newer request, which has taken over.
        if (!status && current?.abort !== abort)
            return false;
        const { action, milliseconds } = decide(status, attempt, retryAfterSeconds, random());
        if (action === "wait") {
            attempt += 1;
            isBehind = true;
            emit("error", { status, retryInMilliseconds: milliseconds });
            endPause();
            if (!isClosed) {
                pause = setTimeout(() => {
                    pause = undefined;
                    void start();
                }, milliseconds);
            }
            return false;
        }
        attempt = 0;
        const isDone = action === "done";
        const settled = isDone || !isLate ? entries : namedBy(json, entries);
        for (const entry of settled) {
            const { movieId, position, time } = entry;
            outbox.settled(entry, isDone);
            if (newest?.time === time && newest.movieId === movieId)
                newest = undefined;
            if (isDone)
                emit("saved", { movieId, positionSeconds: position, milliseconds: now() - sent_at_ms, late: isLate });
        }
        if (isDone)
            return true;
        emit("rejected", { status, problem: json, movieIds: settled.map(({ movieId }) => movieId) });
        // Without an item to blame it is not the positions' fault: they stay for a next start.
        isBehind = isLate && settled.length > 0;
        if (!settled.length)
            newest = undefined;
        return true;
    }
    return {
        offer(entry, hide) {
            newest = entry ?? newest;
            if (!hide)
                void start();
            else if (newest && current?.carries !== newest) {
                current?.abort.abort();
                running = run(newest);
                // Of what was aborted something may still wait.
                isBehind = true;
            }
        },
        catchUp(now) {
            isBehind = true;
            if (now)
                endPause();
            return start();
        },
        close() {
            isClosed = true;
            endPause();
        },
    };
}
/** The entries that the pointers of a 422 name, `/items/3/position_seconds` say. Nothing else in it repeats what was sent. */
export function namedBy(problem, entries) {
    const text = `${JSON.stringify(problem)}`;
    return entries.filter((_, number) => RegExp(`"/items/${number}[/"]`).test(text));
}
