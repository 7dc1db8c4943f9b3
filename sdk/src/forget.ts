/**
 * `@playhead/player/forget`: for a sign-out on a shared device. An import of its own, since few pages need it.
 */

import { all, done, open, STORE, trimmed } from "./outbox.js";

/** Forgets all that this browser keeps of a viewer, sent or not. */
export async function forgetViewer(baseUrl: string, viewerId: string, factory = indexedDB): Promise<void> {
  const database = await open(factory);
  const store = database?.transaction(STORE, "readwrite").objectStore(STORE);
  if (store) await done(store.delete(all([trimmed(baseUrl), viewerId])));
  database?.close();
}
