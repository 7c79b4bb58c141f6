#!/bin/sh
# Makes the folder that `python -m benchmarks pi --root DIR` takes: Debian 12's arm64 Python and what emotiond needs,
# unpacked and not installed, so that nothing runs under emulation and nobody need be root.
#   benchmarks/arm64_root.sh DIR
# Needs apt-get, dpkg and pip on a Debian 12 of any architecture; about 250 MB.
set -eu
root=$(realpath -m "$1")
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$root/debs" "$root/lists/partial" "$root/wheels" "$root/opt/site"
cd "$root/debs"
arm64="-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::Lists=$root/lists"
# shellcheck disable=SC2086 # several words are meant
apt-get $arm64 -qq update
# shellcheck disable=SC2086
apt-get $arm64 -qq download python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libgcc-s1 libstdc++6 \
	zlib1g libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1 libcrypt1 libtinfo6 libncursesw6 libreadline8
for deb in *.deb; do dpkg -x "$deb" "$root"; done
python3 -m pip download --quiet -c "$here/constraints.txt" --only-binary=:all: --python-version 3.11 \
	--implementation cp --platform manylinux2014_aarch64 --platform manylinux_2_17_aarch64 \
	--platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 -d "$root/wheels" \
	ai-edge-litert numpy opencv-python-headless paho-mqtt pydantic pyyaml typing-extensions
for wheel in "$root"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$root/opt/site"; done
rm -r "$root/debs" "$root/lists" "$root/wheels"
