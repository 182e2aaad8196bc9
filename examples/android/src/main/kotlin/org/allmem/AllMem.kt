// AllMem for Kotlin: a model, and what goes into an answer and comes out with it. Chat.kt has the conversation.
package org.allmem

import java.io.File
import kotlin.random.Random

/**
 * How an answer is drawn; AllMem.sampling is what the model asks for. A temperature of 0 always takes the most likely token; topK = 0, topP = 1
 * and minP = 0 filter nothing. An answer ends before the first of the texts in `stop`, wherever tokens break.
 */
data class Sampling(
    val temperature: Float = 0.7f,
    val topK: Int = 0,
    val topP: Float = 1f,
    val minP: Float = 0f,
    val repetitionPenalty: Float = 1f,
    val maxTokens: Long = 512,
    val seed: Long = Random.nextLong(),
    val repetitionWindow: Int = 64,
    val stop: List<String> = emptyList(),
)

/** Why an answer ended. OTHER: for a reason that only a newer library knows. */
enum class Finish {
    STOP_TOKEN, STOP_TEXT, MAX_TOKENS, CANCELLED, OTHER;

    internal companion object {
        fun of(code: Int): Finish = values().getOrElse(code - 1) { OTHER }
    }
}

/**
 * How an answer goes, or how it went once `finish` is there. Tokens of the message that were read and that are still to be read, for a
 * progress bar, and of the answer.
 */
data class Answer(
    val promptTokens: Long = 0,
    val promptLeft: Long = 0,
    val generatedTokens: Long = 0,
    val finish: Finish? = null,
    val prefillSeconds: Double = 0.0,
    val decodeSeconds: Double = 0.0,
)

/** What a model does with its memory. FROZEN: read as training left it, never written, with less state. OFF: only the window is there. */
enum class Memory { ON, FROZEN, OFF }

/** A part of an open file: what AssetFileDescriptor says of an asset that is stored uncompressed. */
class ModelPiece(val name: String, val fd: Int, val offset: Long, val size: Long)

/** A model: immutable, shared by any number of chats and threads. Closing it lets its chats go on. */
class AllMem private constructor(handle: Long) : AutoCloseable {
    private val native = Owned(handle, 0, AllMemNative::closeModel) // its bytes are mapped: the system takes them back by itself

    /** Bytes that one chat remembers in, however long it gets. */
    val stateBytes: Long
        get() = native.use(AllMemNative::stateBytes)

    /** How the model is best drawn from. */
    val sampling: Sampling
        get() {
            val own = native.use(AllMemNative::sampling)
            return Sampling(own[0], own[1].toInt(), own[2], own[3], own[4], repetitionWindow = own[5].toInt())
        }

    /** How many tokens the model reads for this text. */
    fun countTokens(text: String): Int = native.use { AllMemNative.tokenize(it, text.toByteArray()) }.size

    /**
     * A new conversation. threads: 0 takes the fast cores; fewer save battery. undoBytes: memory for Chat.undo(); a turn takes about
     * `stateBytes`, and the newest is kept whatever it takes. 0 keeps none.
     */
    fun chat(system: String? = null, threads: Int = 2, undoBytes: Long = 0): Chat =
        Chat(native.use { AllMemNative.createSession(it, threads) }, system, sampling, undoBytes)

    override fun close() = native.close()

    companion object {
        /**
         * From a directory of files. window: tokens that are seen word for word, 0 as many as the model was trained with; fewer take
         * less memory. What was saved belongs to the same window and memory.
         */
        fun load(directory: File, window: Int = 0, memory: Memory = Memory.ON): AllMem =
            AllMem(AllMemNative.loadModel(directory.path.toByteArray(), window, memory.ordinal))

        /** Forgets a saved memory: also what a save that was killed may have left beside it. FileNotFoundException when there is none. */
        fun delete(memory: File) = AllMemNative.delete(memory.path.toByteArray())

        /** From parts of open files, which may be closed afterwards. */
        fun load(pieces: List<ModelPiece>, window: Int = 0, memory: Memory = Memory.ON): AllMem =
            AllMem(
                AllMemNative.loadModel(
                    Array(pieces.size) { pieces[it].name.toByteArray() },
                    IntArray(pieces.size) { pieces[it].fd },
                    LongArray(pieces.size) { pieces[it].offset },
                    LongArray(pieces.size) { pieces[it].size },
                    window,
                    memory.ordinal,
                )
            )
    }
}
