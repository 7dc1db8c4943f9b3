/**
 * One timer that also runs on time in a hidden page.
 *
 * Timers of hidden pages are throttled to one a second, later to one a minute; those of a dedicated Worker are not. Both
 * are set, and whoever is first calls: so nothing needs to notice that a content security policy forbids the Worker.
 */
const SOURCE = "let t;onmessage=({data:d})=>{clearTimeout(t);d<0||(t=setTimeout(postMessage,d,0))}";
export function ticker({ setTimeout, clearTimeout, worker }, call) {
    let thread;
    let timer;
    try {
        thread = worker(SOURCE);
        thread.onmessage = call;
    }
    catch {
        // Forbidden by a policy; other browsers say so by an event. The page's timers do.
    }
    return {
        set(milliseconds) {
            clearTimeout(timer);
            if (milliseconds >= 0)
                timer = setTimeout(call, milliseconds);
            thread?.postMessage(milliseconds);
        },
        end() {
            this.set(-1);
            thread?.terminate();
        },
    };
}
