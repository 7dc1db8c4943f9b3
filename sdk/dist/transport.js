/**
 * How a request goes out: token, time limit, what the answer's head asks for.
 *
 * **The promise.** A request never rejects and always ends within its time limit, the token's provider included; no
 * answer at all has the status 0. A 401 asks for a new token, once per request. Requests are `keepalive`, so that one
 * begun while the page closes is carried out. With a token at hand `fetch` is called before {@link Request} returns: a
 * page that closes gives no second turn.
 */
/**
 * @param getToken - `undefined` once no token may be asked for: the page may belong to another viewer already
 * @param onInterval - told of `Playhead-Interval`, or of its absence, with every answer
 */
export function transport({ fetch, setTimeout, clearTimeout }, baseUrl, getToken, onInterval) {
    let token;
    async function attempt(path, body, signal) {
        for (let isRetry = false;; isRetry = true) {
            const used = (token ??= await getToken());
            if (used === undefined)
                return { status: 0 };
            const response = await fetch(`${baseUrl}/api/v1/stream/progress${path}`, {
                method: body ? "POST" : "GET",
                headers: { Authorization: `Bearer ${used}`, "Content-Type": "application/json" },
                body: body ? JSON.stringify(body) : null,
                keepalive: true,
                credentials: "omit",
                signal,
            });
            const { status, headers } = response;
            if (status === 401) {
                // Unless another request has got a new one meanwhile.
                if (token === used)
                    token = undefined;
                if (!isRetry)
                    continue;
            }
            onInterval(numberOf(headers.get("Playhead-Interval")));
            const json = status === 204 ? undefined : await response.json().catch(() => undefined);
            return { status, retryAfterSeconds: numberOf(headers.get("Retry-After")), json };
        }
    }
    return (path, body, timeLimitMs, abort = new AbortController()) => new Promise((resolve) => {
        const none = () => resolve({ status: 0 });
        const timer = setTimeout(() => {
            none();
            abort.abort();
        }, timeLimitMs);
        attempt(path, body, abort.signal)
            .then(resolve, none)
            .finally(() => clearTimeout(timer));
    });
}
function numberOf(value) {
    const number = parseFloat(value);
    return number >= 0 ? number : undefined;
}
