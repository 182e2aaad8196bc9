# Compiles for iOS with Xcode; ALLMEM_IOS_SDK is iphoneos or iphonesimulator, CMAKE_OSX_ARCHITECTURES arm64 or x86_64.
set(CMAKE_SYSTEM_NAME iOS)
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ALLMEM_IOS_SDK)
set(ALLMEM_IOS_SDK iphoneos CACHE STRING "iphoneos or iphonesimulator")
set(CMAKE_OSX_SYSROOT ${ALLMEM_IOS_SDK})
set(CMAKE_OSX_ARCHITECTURES arm64 CACHE STRING "One of arm64 and x86_64")
set(CMAKE_OSX_DEPLOYMENT_TARGET 15.0 CACHE STRING "Oldest version of iOS")
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)  # a program would have to be signed
