// Plain <video>: attach, resume, done.

const video = document.getElementById("video");
const playhead = Playhead.attachPlayhead(video, { baseUrl: "", movieId: 101, viewerId, getToken });
showWhatIsSaved(playhead);
playhead.resume();
video.src = "../media/tideline.mp4";
