// hls.js: it is told where to start before it loads, so that no segment is fetched for nothing.

const video = document.getElementById("video");
const playhead = Playhead.attachPlayhead(video, { baseUrl: "", movieId: 102, viewerId, getToken });
showWhatIsSaved(playhead);

const hls = new Hls({ autoStartLoad: false });
hls.loadSource("../media/night-train.m3u8");
hls.attachMedia(video);
const start = playhead.resume();
hls.on(Hls.Events.MANIFEST_PARSED, async () => hls.startLoad(await start));
