// Shaka Player: `load` takes the second to start at.

const video = document.getElementById("video");
const playhead = Playhead.attachPlayhead(video, { baseUrl: "", movieId: 103, viewerId, getToken });
showWhatIsSaved(playhead);

async function main() {
  const player = new shaka.Player();
  await player.attach(video);
  await player.load("../media/glass-orchard.m3u8", await playhead.resume());
}
main();
