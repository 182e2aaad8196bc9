// The Android library module: Kotlin and Java classes, and liballmem_jni.so built from the repository around it.
plugins {
    id("com.android.library")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "org.allmem"
    compileSdk = 35
    ndkVersion = "27.2.12479018"  // at least r26, for C++20

    defaultConfig {
        minSdk = 24
        consumerProguardFiles("consumer-rules.pro")
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
        externalNativeBuild {
            // The two native libraries share nothing but allmem.h, so each may have its own C++ runtime.
            cmake { arguments += listOf("-DANDROID_STL=c++_static", "-DCMAKE_BUILD_TYPE=Release", "-DALLMEM_FETCH_DEPS=ON") }
        }
    }
    externalNativeBuild {
        cmake {
            path = file("src/main/cpp/CMakeLists.txt")
            version = "3.31.6"  // at least 3.25
        }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
    kotlinOptions { jvmTarget = "11" }
}

dependencies { api("org.jetbrains.kotlinx:kotlinx-coroutines-core:1.9.0") }
