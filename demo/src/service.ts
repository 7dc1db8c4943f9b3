/** How the demo's pages reach the service: tokens of its viewers, and the one call the players do not make themselves. */

/** Asks the server that runs with --dev; there are tokens for the demo's own viewers only. */
export async function tokenOf(viewer: string): Promise<string> {
  const response = await fetch(`token/${viewer}`, { method: "POST" });
  if (!response.ok) throw new Error(`no token: ${response.status}`);
  return response.text();
}

export interface Bookmark {
  readonly movie_id: string;
  readonly position_seconds: number;
  readonly duration_seconds: number | null;
}

const tokens = new Map<string, string>();

/** A call as this viewer, with a new token if the old one has expired. */
export async function call(viewer: string, method: string, path: string): Promise<Response> {
  for (let attempt = 0; ; attempt += 1) {
    const token = tokens.get(viewer) ?? (await tokenOf(viewer));
    tokens.set(viewer, token);
    const headers = { Authorization: `Bearer ${token}` };
    const response = await fetch(`/api/v1/stream/progress${path}`, { method, headers });
    if (response.status !== 401 || attempt > 0) return response;
    tokens.delete(viewer);
  }
}
