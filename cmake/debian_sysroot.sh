#!/bin/sh
# Fills a directory with Debian's packages of another architecture, for cross-compiling and for qemu-user to run
# against. Needs neither root nor a foreign architecture in dpkg: apt keeps a state of its own in the directory.
#   debian_sysroot.sh arm64 build/sysroot-arm64 libc6-dev libsimdjson-dev ...
set -eu
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
  echo "Missing: apt-get and dpkg-deb, to fetch Debian's packages for $1. Elsewhere, fill the directory $2 with these" >&2
  echo "packages for $1 by other means, touch $2/.filled, and go on: $(shift 2; echo "$@")" >&2
  exit 1
fi
arch=$1
mkdir -p "$2/apt/lists/partial" "$2/apt/archives/partial"
root=$(cd "$2" && pwd)
shift 2

: > "$root/apt/status"
apt() {
  apt-get -qq -y -o APT::Architecture="$arch" -o APT::Architectures::="$arch" -o APT::Sandbox::User= \
    -o Dir::State="$root/apt" -o Dir::State::status="$root/apt/status" -o Dir::Cache="$root/apt" "$@" >/dev/null
}
apt update
apt install --download-only --no-install-recommends "$@"
for package in "$root"/apt/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
rm -r "$root/apt"

# Absolute links would lead out of the directory, to the libraries of this machine.
find "$root" -type l -lname '/*' | while read -r link; do
  ln -srfn "$root$(readlink "$link")" "$link"
done
