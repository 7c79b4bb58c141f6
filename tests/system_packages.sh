#!/bin/sh
# What the tests need from Debian: a broker, and an RTSP server made of GStreamer. Tests skip, with a reason,
# where this could not be installed (no apt, no rights, no such package, no network).
set -eu
packages="minisign nats-server mosquitto mosquitto-clients python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base
  gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly ffmpeg
  xvfb openbox xdotool chromium fonts-dejavu-core"
command -v apt-get >/dev/null || exit 0
missing() {
  for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" || printf ' %s' "$package"
  done
}
wanted=$(missing)
[ -n "$wanted" ] || exit 0
as_root=""
if [ "$(id -u)" -ne 0 ]; then
  sudo -n true 2>/dev/null || { echo "not installed, and no rights to:$wanted" >&2; exit 0; }
  as_root="sudo -n"
fi
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -q >/dev/null || true
# One that cannot be had would keep all the others away.
available=""
for package in $wanted; do
  if apt-get -s install -q --no-install-recommends "$package" >/dev/null; then available="$available $package"; fi
done
# shellcheck disable=SC2086 # a list of names
[ -z "$available" ] || $as_root apt-get install -q -y --no-install-recommends $available >/dev/null || true
left=$(missing)
[ -z "$left" ] || echo "not installed:$left" >&2
