/** What the demo shows: six clips of 88 s, made by media/make.sh. */

export interface Title {
  readonly id: string;
  readonly slug: string;
  readonly name: string;
  readonly line: string;
}

export const TITLES: readonly Title[] = [
  { id: "101", slug: "tideline", name: "Tideline", line: "A shore, twice a day" },
  { id: "102", slug: "night-train", name: "Night Train North", line: "Nine stops before dawn" },
  { id: "103", slug: "glass-orchard", name: "The Glass Orchard", line: "What grows under glass" },
  { id: "104", slug: "paper-moons", name: "Paper Moons", line: "A theatre folds away" },
  { id: "105", slug: "slow-comet", name: "Slow Comet", line: "Back in 412 years" },
  // More than a JavaScript number holds: ids are strings all the way.
  { id: "9007199254740993", slug: "signal-fire", name: "Signal Fire", line: "Five hills, one message" },
];

export function titleOf(id: string | null): Title | undefined {
  return TITLES.find((title) => title.id === id);
}

/** 83 as 1:23. */
export function clock(seconds: number): string {
  const whole = Math.max(Math.floor(seconds), 0);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
