/** What a device tells the page that it stands on. */

export type Said =
  | { readonly kind: "height"; readonly pixels: number }
  | { readonly kind: "state"; readonly text: string }
  | { readonly kind: "sent"; readonly beat: number; readonly what: string; readonly position: number | undefined }
  | { readonly kind: "answered"; readonly beat: number; readonly status: number; readonly milliseconds: number }
  | { readonly kind: "saved" };

/** What the page may do to a device. */
export interface Device {
  /** Opens the title, if the address says to wait. */
  open(): Promise<void>;
  /** The events of the player, oldest first. */
  readonly log: readonly { readonly type: string; readonly detail: unknown }[];
  /** Pulls the network, or plugs it in again. */
  setNetwork(isOn: boolean): void;
  /** Nothing leaves the device any more, nor reaches its storage: as when its battery is taken out. */
  die(): void;
}

declare global {
  interface Window {
    demoDevice?: Device;
  }
}
