#!/bin/sh
# Builds the wheel for 64-bit Arm Linux with the cross compiler, installs it with pip in a Debian arm64 root file system,
# and lets the bundled model answer there, all under qemu-user.
#   wheel_aarch64.sh PIP ROOT     PIP: of a Python of the same version as ROOT's
# ROOT is a directory that cmake/debian_sysroot.sh has filled (see `make test-wheel-aarch64`). The wheel stays in
# ROOT/wheels.
set -eu
pip=$1
root=$(cd "$2" && pwd)
here=$(cd "$(dirname "$0")/.." && pwd)
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64)

# What cannot be asked of the target's Python by the build, as it does not run there.
python=$(readlink "$root/usr/bin/python3")  # python3.11
abi=cp3${python#python3.}
suffix=.cpython-${abi#cp}-aarch64-linux-gnu.so
ours=$("$pip" --version | sed 's/.*(python \(.*\))/python\1/')
[ "$ours" = "$python" ] || { echo "The wheel is for $python, so pip has to be that of $python, not of $ours." >&2; exit 1; }

rm -rf "$root/wheels"
_PYTHON_HOST_PLATFORM=linux-aarch64 "$pip" wheel -q --disable-pip-version-check --no-deps -w "$root/wheels" "$here" \
  --config-settings cmake.define.CMAKE_TOOLCHAIN_FILE="$here/cmake/toolchains/aarch64-linux-gnu.cmake" \
  --config-settings cmake.define.ALLMEM_SYSROOT="$root" --config-settings cmake.define.Python_INCLUDE_DIR="$root/usr/include/$python" \
  --config-settings cmake.define.PYTHON_MODULE_EXTENSION="$suffix" --config-settings cmake.define.PYTHON_MODULE_DEBUG_POSTFIX= \
  --config-settings cmake.define.ALLMEM_WERROR=ON --config-settings build-dir="$here/build/wheel-aarch64"
wheel=$(cd "$root" && ls wheels/allmem_edge-*-"$abi-$abi"-linux_aarch64.whl)
echo "built $wheel"

# What it depends on, as wheels for that machine; pip there takes these and nothing else.
"$pip" download -q --disable-pip-version-check -d "$root/wheels" --only-binary=:all: --python-version "${abi#cp}" \
  --platform linux_aarch64 --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 "$root/$wheel"

# In the root file system. There is no binfmt_misc to rely on, so every program is started through the emulator.
cp "$qemu" "$root/qemu"
mkdir -p "$root/tmp"
arm() {
  if [ "$(id -u)" = 0 ]; then chroot "$root" /qemu "$@"; else unshare --map-root-user chroot "$root" /qemu "$@"; fi
}
arm "/usr/bin/$python" -m pip install -q --no-index --find-links /wheels --no-compile --force-reinstall \
  --break-system-packages --root-user-action=ignore "/$wheel"
arm "/usr/bin/$python" -c 'import platform
from allmem_edge import _core
print(platform.machine(), _core.isa_name())'
say() { echo "$1" | arm "/usr/bin/$python" -m allmem_edge chat --temp 0 --memory /tmp/me.allmem 2>/dev/null; }
rm -f "$root/tmp/me.allmem"
say "Hi, I'm Tobias."
answer=$(say "What is my name?")
echo "$answer"
case $answer in *Tobias*) ;; *) echo "It forgot the name." >&2; exit 1 ;; esac
