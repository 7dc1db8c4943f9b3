/** Light or dark: the system's, until the viewer chooses. The frames follow by the storage they share. */

const KEY = "playhead-demo-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

export function isDark(): boolean {
  const chosen = localStorage.getItem(KEY);
  return chosen === null ? dark.matches : chosen === "dark";
}

export function choose(theme: "dark" | "light"): void {
  localStorage.setItem(KEY, theme);
  apply();
}

function apply(): void {
  document.documentElement.dataset["theme"] = isDark() ? "dark" : "light";
}

/** Applies it now and whenever it changes; says so to the caller. */
export function follow(onChange: () => void = () => undefined): void {
  const changed = (): void => {
    apply();
    onChange();
  };
  dark.addEventListener("change", changed);
  addEventListener("storage", changed);
  changed();
}
