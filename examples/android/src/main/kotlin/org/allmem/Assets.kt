// A model from an app's assets. Android only.
package org.allmem

import android.content.res.AssetManager

/**
 * Maps the model in `directory` of the assets, without copying it. The assets must be stored uncompressed (README.md); one that is
 * not gives FileNotFoundException.
 */
fun AllMem.Companion.load(assets: AssetManager, directory: String): AllMem {
    val wanted = Regex(""".*\.onnx|.*\.data|tokenizer\.json|generation_config\.json""")
    val names = assets.list(directory).orEmpty().filter { it.matches(wanted) }
    val files = names.map { assets.openFd("$directory/$it") }
    try {
        return load(names.zip(files) { name, file ->
            ModelPiece(name, file.parcelFileDescriptor.fd, file.startOffset, file.length)
        })
    } finally {
        files.forEach { it.close() }
    }
}
