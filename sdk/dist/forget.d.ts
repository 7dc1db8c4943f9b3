/**
 * `@playhead/player/forget`: for a sign-out on a shared device. An import of its own, since few pages need it.
 */
/** Forgets all that this browser keeps of a viewer, sent or not. */
export declare function forgetViewer(baseUrl: string, viewerId: string, factory?: IDBFactory): Promise<void>;
