// The Android library module: Kotlin and Java classes, and liballmem_jni.so built from the repository around it.
// Nothing is downloaded while CMake configures: cmake/fetch_deps.cmake is to be run once before (README.md).
plugins {
    id("com.android.library") // 9 or later, which compiles Kotlin by itself; settings.gradle.kts has the version
    `maven-publish`
}

group = "org.allmem"
version = "0.2.0"

val repository = file("../..")
val libraries: String = providers.gradleProperty("allmem.libraries").getOrElse("$repository/build/deps")

android {
    namespace = "org.allmem"
    compileSdk = 36
    buildToolsVersion = "36.0.0"
    ndkVersion = "28.2.13676358" // at least r26, for C++20

    defaultConfig {
        minSdk = 24
        consumerProguardFiles("consumer-rules.pro")
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
        externalNativeBuild {
            cmake {
                targets += listOf("allmem", "allmem_jni")
                // The two native libraries share nothing but allmem.h, so each may have its own C++ runtime.
                arguments += listOf("-DANDROID_STL=c++_static", "-DCMAKE_BUILD_TYPE=Release", "-DALLMEM_DEPS_DIR=$libraries")
            }
        }
    }
    externalNativeBuild {
        cmake {
            path = file("src/main/cpp/CMakeLists.txt")
            version = "3.31.6" // at least 3.25
        }
    }
    compileOptions { // Kotlin's as well
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
    publishing { singleVariant("release") { withSourcesJar() } }
}

dependencies { api("org.jetbrains.kotlinx:kotlinx-coroutines-core:1.10.2") }

publishing {
    publications {
        register<MavenPublication>("release") {
            artifactId = "allmem"
            pom {
                name = "AllMem"
                description = "Language models with a memory that lasts, on the device"
                licenses {
                    license {
                        name = "Apache-2.0"
                        url = "https://www.apache.org/licenses/LICENSE-2.0"
                    }
                }
            }
            afterEvaluate { from(components["release"]) }
        }
    }
}
