#!/bin/sh
# Builds allmem.xcframework, static, for iPhones and for the simulator, as examples/ios takes it. Needs macOS with Xcode.
#   ios_xcframework.sh OUTPUT_DIRECTORY
set -eu
out=$1
here=$(cd "$(dirname "$0")/.." && pwd)
build=$here/build/ios
for tool in cmake ninja lipo xcodebuild; do
  command -v $tool >/dev/null || { echo "Missing: $tool, to build for iOS. Xcode and CMake are needed." >&2; exit 1; }
done

cmake -DDIRECTORY="$build/deps" -P "$here/cmake/fetch_deps.cmake"

# build_for SDK ARCHITECTURE
build_for() {
  cmake -S "$here" -B "$build/$1-$2" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$here/cmake/toolchains/ios.cmake" \
    -DCMAKE_BUILD_TYPE=Release -DALLMEM_DEPS_DIR="$build/deps" -DALLMEM_IOS_SDK="$1" -DCMAKE_OSX_ARCHITECTURES="$2"
  cmake --build "$build/$1-$2" --target allmem_static
}
build_for iphoneos arm64
build_for iphonesimulator arm64
build_for iphonesimulator x86_64
rm -rf "$build/headers"
mkdir -p "$build/simulator" "$build/headers/allmem"
lipo -create "$build/iphonesimulator-arm64/csrc/liballmem.a" "$build/iphonesimulator-x86_64/csrc/liballmem.a" \
  -output "$build/simulator/liballmem.a"

cp "$here/csrc/include/allmem/allmem.h" "$build/headers/allmem/"
cp -R "$here/examples/ios/xcframework/CAllMem" "$build/headers/"
rm -rf "$out/allmem.xcframework"
xcodebuild -create-xcframework -output "$out/allmem.xcframework" \
  -library "$build/iphoneos-arm64/csrc/liballmem.a" -headers "$build/headers" \
  -library "$build/simulator/liballmem.a" -headers "$build/headers"
