#!/bin/sh
# What the tests need from Debian: a broker, and an RTSP server made of GStreamer. Tests skip, with a reason,
# where this could not be installed (no apt, no rights).
set -eu
packages="minisign nats-server mosquitto mosquitto-clients python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base
  gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly ffmpeg
  xvfb openbox xdotool chromium fonts-dejavu-core"
command -v apt-get >/dev/null || exit 0
missing=""
for package in $packages; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
as_root=""
if [ "$(id -u)" -ne 0 ]; then
  sudo -n true 2>/dev/null || { echo "not installed, and no rights to:$missing" >&2; exit 0; }
  as_root="sudo -n"
fi
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -q >/dev/null
# shellcheck disable=SC2086 # a list of names
$as_root apt-get install -q -y --no-install-recommends $missing >/dev/null
