// Only for this module by itself, to make an AAR of it: an app that includes it has settings of its own.
pluginManagement {
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
    plugins { id("com.android.library") version "9.0.0" } // brings Kotlin 2.2.10
}

dependencyResolutionManagement {
    repositoriesMode = RepositoriesMode.FAIL_ON_PROJECT_REPOS
    repositories {
        google()
        mavenCentral()
    }
}

rootProject.name = "allmem"
