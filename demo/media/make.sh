#!/usr/bin/env bash
# Makes the demo's clips: six titles of 88 s as HLS in segments of 4 s, one fragmented MP4 each, under 1 MiB together.
# Needs ffmpeg and the font DejaVu Sans (Debian: ffmpeg, fonts-dejavu-core). The clips are committed; nothing else runs this.
#
# No picture is predicted from a later one (-bf 0): with such, all would be shown 0.2 s later than their time.
#
# Each picture is drawn: a gradient, the title, the second in large figures, a dash that crosses the screen once per
# segment, and in the corner the second once more as eight squares, the highest bit first: white is 1. A program can read
# those from a picture of the screen (demo/proofs/device.mjs does).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../static/media"

seconds=88
font=$(fc-match --format='%{file}' 'DejaVu Sans:bold')

clip() { # name, title, gradient type, its two colours
    local filter="drawtext=fontfile=$font:text='$2':fontsize=26:fontcolor=white@0.9:x=28:y=26"
    filter+=",drawtext=fontfile=$font:text='%{pts\:gmtime\:0\:%M\\\\\:%S}':fontsize=120:fontcolor=white:x=(w-tw)/2:y=(h-120)/2+8"
    local bit
    for bit in 7 6 5 4 3 2 1 0; do
        local box="x=$((592 - bit * 20)):y=324:w=16:h=16:t=fill"
        filter+=",drawbox=$box:color=black"
        filter+=",drawbox=$box:color=white:enable='gte(mod(floor((t+0.001)/$((1 << bit))),2),1)'"
    done
    # One picture of the gradient, repeated: what does not move costs nothing.
    ffmpeg -hide_banner -loglevel error -y \
        -f lavfi -i "gradients=s=640x360:r=10:d=0.1:type=$3:c0=$4:c1=$5:n=2:x0=40:y0=20:x1=600:y1=340:speed=0.00001" \
        -f lavfi -i "color=white:s=24x4:r=10" -filter_complex \
        "[0]loop=loop=-1:size=1,setpts=N/10/TB,format=yuv420p,$filter[film];[film][1]overlay=x='mod(t,4)/4*W':y=H-4" -t "$seconds" -an \
        -c:v libx264 -preset veryslow -profile:v main -crf 36 -tune animation -bf 0 -pix_fmt yuv420p \
        -g 40 -keyint_min 40 -sc_threshold 0 -flags +bitexact -fflags +bitexact -map_metadata -1 -threads 1 \
        -f hls -hls_time 4 -hls_playlist_type vod -hls_segment_type fmp4 -hls_flags single_file+independent_segments \
        -hls_segment_filename "$1.mp4" "$1.m3u8"
}

rm -f ./*.mp4 ./*.m3u8
clip tideline 'Tideline' linear 0x0b3954 0x1f9e9e
clip night-train 'Night Train North' radial 0xd98324 0x1d1a4b
clip glass-orchard 'The Glass Orchard' linear 0x16412f 0x8fb339
clip paper-moons 'Paper Moons' circular 0x4a1942 0xc9638a
clip slow-comet 'Slow Comet' linear 0x05070f 0x1c5d99
clip signal-fire 'Signal Fire' radial 0xf25c05 0x3d0c11
du -cb ./*.mp4 ./*.m3u8
