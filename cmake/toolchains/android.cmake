# Compiles for Android with the NDK that ANDROID_NDK_HOME points to; ANDROID_ABI is arm64-v8a or x86_64.
if(NOT EXISTS "$ENV{ANDROID_NDK_HOME}/build/cmake/android.toolchain.cmake")
  message(FATAL_ERROR "Set the environment variable ANDROID_NDK_HOME to the directory of an Android NDK (r26 or later).")
endif()
set(ANDROID_PLATFORM android-24 CACHE STRING "Oldest version of Android")
set(ANDROID_STL c++_static CACHE STRING "The C API is all that leaves the library, so it may have its own runtime")
include($ENV{ANDROID_NDK_HOME}/build/cmake/android.toolchain.cmake)
