# Compiles for 32-bit x86 Linux with clang, which needs no other packages for it. The processor runs the tests itself, with
# the loader and the libraries in ALLMEM_SYSROOT, as cmake/debian_sysroot.sh fills it for i386.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR i686)
set(CMAKE_C_COMPILER clang)
set(CMAKE_CXX_COMPILER clang++)
set(CMAKE_C_COMPILER_TARGET i386-linux-gnu)
set(CMAKE_CXX_COMPILER_TARGET i386-linux-gnu)
set(ENV{CCACHE_BASEDIR} "")  # which would make the compiler's own directories relative while CMake asks for them
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ALLMEM_SYSROOT)

set(ALLMEM_SYSROOT "" CACHE PATH "Directory with the target's libraries")
set(CMAKE_SYSROOT ${ALLMEM_SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(CMAKE_CROSSCOMPILING_EMULATOR ${ALLMEM_SYSROOT}/lib/i386-linux-gnu/ld-linux.so.2 --library-path
    ${ALLMEM_SYSROOT}/lib/i386-linux-gnu:${ALLMEM_SYSROOT}/usr/lib/i386-linux-gnu)
