/**
 * One title in one media element: listens to the element and the page, and decides what is sent, kept and sought.
 *
 * **The promise.** Nothing here throws into the player, and playback waits for nothing. Beats follow heartbeat.ts; besides,
 * a position goes out at once on `pause`, `seeked`, `ended`, a change of source, and when the page is hidden or left.
 *
 * **Unknown is not zero.** A session begins *unconfirmed*: what it reaches is held in the outbox and not sent. It is
 * confirmed once the place was read and lies at or behind the film, or the film was moved there; once the viewer has
 * sought; or after 30 s watched. A page that comes back after a while begins so again: another device may be further.
 *
 * **What it leaves out.** Live streams have no place. While held (advertisements in the same element) and between a change
 * of source and the next `playing`, the element's time is not the film's and is not looked at.
 */
import { heartbeat } from "./heartbeat.js";
import { outbox, trimmed } from "./outbox.js";
import { judge, maySend, WATCHED_SECONDS } from "./place.js";
import { decide } from "./retry.js";
import { sender } from "./sender.js";
import { ticker } from "./ticker.js";
import { transport } from "./transport.js";
/** How long `resume()` keeps a page waiting. */
const OPENING_MS = 2_000;
/**
 * The longest step between two attempts to read the place while the film goes on without it: an answer after 30 s watched
 * comes too late to go there.
 */
const UNKNOWN_MS = 4_000;
/** How long storage may keep it waiting. */
const LOADING_MS = 500;
/** After so long without an acknowledged beat another device may be further. */
const AWAY_MS = 60_000;
/** Between two looks by the timer. */
const TICK_MS = 50;
const SEEK_SETTLES_MS = 400;
/** Shorter jumps are the player's own, over gaps. */
const SEEK_SECONDS = 1;
export function session(media, options, environment, emit) {
    const { now, random, setTimeout, clearTimeout, document, window } = environment;
    const { viewerId, getToken } = options;
    const movieId = String(options.movieId);
    const baseUrl = trimmed(options.baseUrl);
    const rewind = Math.min(Math.max(options.rewindSeconds ?? 0, 0), 10);
    const listening = new AbortController();
    const { signal } = listening;
    let opened;
    /** Playback waits for the first answer. */
    let isOpening = false;
    /** See "Unknown is not zero". */
    let isConfirmed = false;
    let hasSought = false;
    let watched = 0;
    /** Counts the readings of the place; an answer to an older one comes too late. */
    let reading = 0;
    /** The next attempt to read, while it waits for its time. */
    let again;
    let savedAt = now();
    let isHeld = false;
    /** The element shows the film: false from a change of source until it plays. */
    let isFilm = true;
    /** Where the film was when it was last looked at. */
    let at;
    /** The newest position that went to the outbox, or from which nothing has moved yet. */
    let kept;
    /** A seek of ours: its target, and whether the element has yet to be told. */
    let target;
    let isTargetAhead = false;
    let seekTimer;
    const box = outbox(environment, baseUrl, viewerId);
    const beats = heartbeat(random());
    const ticks = ticker(environment, look);
    const request = transport(environment, baseUrl, () => (signal.aborted ? undefined : getToken(viewerId)), beats.askFor);
    const lock = `playhead ${baseUrl} ${viewerId}`;
    const out = sender(environment, request, box, tell, lock);
    function tell(type, detail) {
        if (type === "saved")
            savedAt = now();
        emit(type, detail);
    }
    // --- The element and the page.
    function on(eventTarget, types, listener) {
        for (const type of types.split(" "))
            eventTarget.addEventListener(type, listener, { signal });
    }
    /** Looks where the film is; makes a beat if one is due. */
    function look() {
        const { paused, readyState, seeking, currentTime, duration, playbackRate } = media;
        let due = -1;
        if (!isHeld && isFilm && !isTargetAhead && readyState && duration !== Infinity) {
            if (!seeking)
                watched += Math.abs(currentTime - (at ?? currentTime));
            at = currentTime;
            if (!hasSought)
                kept ??= at;
            if (!isConfirmed && watched >= WATCHED_SECONDS)
                confirm(true);
            if (!paused && !seeking && !seekTimer) {
                if (!beats.dueIn(at, now(), playbackRate))
                    keep();
                // A film that waits for data does not move: no sooner than this.
                due = Math.max(beats.dueIn(at, now(), playbackRate), TICK_MS);
            }
        }
        ticks.set(due);
    }
    /** Keeps where the film was last seen, if it has moved; sends it, if it is confirmed. */
    function keep(hide = false) {
        let entry;
        if (at !== undefined && Math.abs(at - (kept ?? -1)) >= 0.01) {
            const { duration } = media;
            kept = at;
            beats.beaten(at, now());
            entry = {
                movieId,
                position: +at.toFixed(3),
                duration: duration < Infinity ? duration : undefined,
                time: now(),
                held: !isConfirmed,
            };
            box.put(entry);
        }
        if (entry || hide)
            out.offer(isConfirmed ? entry : undefined, hide);
    }
    function lookAndKeep() {
        look();
        keep();
    }
    function flush() {
        look();
        keep(true);
    }
    /** A seek goes out once it has settled. */
    function debounce() {
        clearTimeout(seekTimer);
        seekTimer = setTimeout(() => {
            seekTimer = undefined;
            lookAndKeep();
        }, SEEK_SETTLES_MS);
    }
    on(media, "timeupdate ratechange loadedmetadata", look);
    on(media, "pause ended", lookAndKeep);
    on(media, "play", () => comeBack());
    on(media, "playing", () => {
        isFilm ||= !isHeld;
        look();
    });
    on(media, "seeking", () => {
        const to = media.currentTime;
        if (isHeld || !isFilm || isTargetAhead)
            return;
        const isOurs = Math.abs(to - target) < SEEK_SECONDS;
        if (!isOurs && Math.abs(to - (at ?? 0)) >= SEEK_SECONDS) {
            hasSought = true;
            // What was reached before says nothing any more.
            confirm(false);
            debounce();
        }
        at = to;
    });
    on(media, "seeked", () => {
        if (seekTimer)
            debounce();
        look();
    });
    on(media, "emptied", () => {
        // The element's time is 0 already: what counts is where the film was last seen.
        if (isHeld || at === undefined)
            return;
        keep();
        isFilm = false;
        at = undefined;
    });
    on(document, "visibilitychange", () => (document.visibilityState === "hidden" ? flush() : comeBack()));
    on(window, "pagehide", flush);
    on(window, "pageshow", (event) => comeBack(event.persisted));
    on(window, "online", () => {
        again?.();
        void load(true);
    });
    void load();
    /** Sends what earlier pages have left. */
    async function load(isOnline) {
        await loaded();
        await out.catchUp(isOnline);
    }
    /** What the device has kept; storage that hangs is not waited for. */
    function loaded() {
        return Promise.race([box.load(), pause(LOADING_MS)]);
    }
    function pause(milliseconds) {
        return new Promise((go) => setTimeout(go, milliseconds));
    }
    // --- The place.
    async function open() {
        isOpening = true;
        await Promise.race([read(), pause(OPENING_MS)]);
        isOpening = false;
        const local = box.newest(movieId);
        if (!isConfirmed && local)
            startAt(local.position - rewind, "local");
        return (hasSought ? undefined : target) ?? media.currentTime;
    }
    /** Another device may be further: begins as at the start, but playback goes on meanwhile. */
    function comeBack(isCertain) {
        if (!opened || isHeld || !(isCertain || now() - savedAt > AWAY_MS))
            return;
        isConfirmed = hasSought = false;
        watched = 0;
        void read();
    }
    /** Reads until there is an answer; resolves after the first attempt. */
    async function read(attempt = 0) {
        const mine = (reading += 1);
        again = undefined;
        const place = await readPlace();
        if (mine !== reading)
            return;
        if (typeof place === "number")
            return found(place);
        const { status, retryAfterSeconds, json } = place;
        const longestMs = isConfirmed || media.paused ? undefined : UNKNOWN_MS;
        const { action, milliseconds } = decide(status, attempt, retryAfterSeconds, random(), longestMs);
        if (action === "drop") {
            emit("rejected", { status, problem: json, movieIds: [] });
            return;
        }
        emit("error", { status, retryInMilliseconds: milliseconds });
        setTimeout((again = () => mine === reading && void read(attempt + 1)), milliseconds);
    }
    /** The place, after what this device has left was sent; or the answer, if there is none. */
    async function readPlace() {
        await loaded();
        // What was reached offline counts before the place is asked for.
        if (box.waiting().length)
            await out.catchUp();
        const place = await get();
        // Sent as an item with its time: if another device has written since, that stands, and the place is read again.
        if (typeof place !== "number" || !box.settle(movieId, (held) => maySend(held, place)))
            return place;
        await out.catchUp();
        return get();
    }
    async function get() {
        const answer = await request(`/${movieId}`, undefined, OPENING_MS);
        const place = answer.json?.resume_position_seconds;
        if (answer.status !== 200 || typeof place !== "number")
            return answer;
        // A service that can be read but not written to may know less than this device.
        return Math.max(place, box.waiting().find((entry) => entry.movieId === movieId)?.position ?? 0);
    }
    function found(read) {
        const place = Math.max(read - rewind, 0);
        const current = (isTargetAhead ? target : at) ?? media.currentTime;
        const verdict = judge({ place, current, sought: hasSought, watched, opening: isOpening });
        if (verdict === "go-on")
            return confirm(true);
        if (verdict !== "resume") {
            const mayMove = emit("place-found", { positionSeconds: place, currentSeconds: current });
            if (verdict === "tell" || !mayMove || hasSought)
                return;
        }
        confirm(false);
        startAt(place, "server");
    }
    function startAt(position, source) {
        const goal = (target = Math.max(position, 0));
        isTargetAhead = true;
        const go = () => {
            if (target !== goal || !isTargetAhead)
                return;
            isTargetAhead = false;
            at = kept = goal;
            beats.startAt(goal);
            if (Math.abs(media.currentTime - goal) >= 0.1)
                media.currentTime = goal;
            emit("resumed", { positionSeconds: goal, source });
            look();
        };
        if (media.readyState)
            go();
        else
            media.addEventListener("loadedmetadata", go, { signal, once: true });
    }
    /** What is reached from here on may be sent, and what was held perhaps too. */
    function confirm(heldToo) {
        isConfirmed = true;
        if (box.settle(movieId, () => heldToo))
            void out.catchUp();
    }
    return {
        resume: () => (opened ??= open()),
        flush,
        hold() {
            flush();
            isHeld = true;
            look();
        },
        release() {
            isHeld = false;
            // Unless it plays already, the element may not have come back to the film yet.
            isFilm = !media.paused && media.readyState > 2;
            at = undefined;
            look();
        },
        detach() {
            flush();
            reading += 1;
            listening.abort();
            clearTimeout(seekTimer);
            ticks.end();
            out.close();
        },
    };
}
