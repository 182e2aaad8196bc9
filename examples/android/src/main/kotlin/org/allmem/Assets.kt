// A model from an app's assets. Android only.
package org.allmem

import android.content.res.AssetFileDescriptor
import android.content.res.AssetManager

/**
 * Maps the model in `directory` of the assets, without copying it. The assets must be stored uncompressed (README.md); one that is
 * not gives FileNotFoundException. Nothing is compared with checksums: the system has checked the app's signature.
 */
fun AllMem.Companion.load(assets: AssetManager, directory: String, window: Int = 0, memory: Memory = Memory.ON): AllMem {
    val wanted = Regex(""".*\.(onnx|data|json)""")
    val files = mutableListOf<AssetFileDescriptor>()
    try {
        val pieces = assets.list(directory).orEmpty().filter { it.matches(wanted) }.map { name ->
            val file = assets.openFd("$directory/$name").also { files += it }
            ModelPiece(name, file.parcelFileDescriptor.fd, file.startOffset, file.length)
        }
        return load(pieces, window, memory)
    } finally {
        files.forEach { runCatching { it.close() } }
    }
}
