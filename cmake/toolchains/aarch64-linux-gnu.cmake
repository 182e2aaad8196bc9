# Cross-compiles for 64-bit Arm Linux with Debian's g++-aarch64-linux-gnu, and runs the tests under qemu-user.
# ALLMEM_SYSROOT: a directory with the libraries for arm64, as cmake/debian_sysroot.sh fills one.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ALLMEM_SYSROOT)

set(ALLMEM_SYSROOT "" CACHE PATH "Directory with the target's libraries")
set(CMAKE_SYSROOT ${ALLMEM_SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
# -cpu max: every instruction set extension that qemu knows, so that every kernel is tested.
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -cpu max -L ${ALLMEM_SYSROOT})
