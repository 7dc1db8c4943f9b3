// Stands for your own session: who watches, and a token of theirs. `serve --dev` gives tokens of the demo's viewers only.

const viewerId = "-9000000000000000003";

async function getToken() {
  const response = await fetch(`../token/${viewerId}`, { method: "POST" });
  if (!response.ok) throw new Error(`no token: ${response.status}`);
  return response.text();
}

function showWhatIsSaved(playhead) {
  const status = document.getElementById("status");
  playhead.addEventListener("resumed", ({ detail }) => (status.textContent = `Started at ${detail.positionSeconds} s`));
  playhead.addEventListener("saved", ({ detail }) => (status.textContent = `Saved ${detail.positionSeconds} s`));
}
