// AllMem for Kotlin: a model, and chats whose answers are flows of text.
package org.allmem

import java.io.File
import kotlin.random.Random
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.channels.trySendBlocking
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.channelFlow
import kotlinx.coroutines.flow.flowOn
import kotlinx.coroutines.isActive
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import kotlinx.coroutines.withContext

/** How an answer is drawn; AllMem.sampling is what the model asks for. A temperature of 0 always takes the most likely token; topK = 0, topP = 1 and minP = 0 filter nothing. */
data class Sampling(
    val temperature: Float = 0.7f,
    val topK: Int = 0,
    val topP: Float = 1f,
    val minP: Float = 0f,
    val repetitionPenalty: Float = 1f,
    val maxTokens: Long = 512,
    val seed: Long = Random.nextLong(),
)

/** A part of an open file: what AssetFileDescriptor says of an asset that is stored uncompressed. */
class ModelPiece(val name: String, val fd: Int, val offset: Long, val size: Long)

/** A model: immutable, shared by any number of chats and threads. Closing it lets its chats go on. */
class AllMem private constructor(private val handle: Long) : AutoCloseable {
    /** Bytes that one chat remembers in, however long it gets. */
    val stateBytes: Long
        get() = AllMemNative.stateBytes(handle)

    /** How the model is best drawn from. */
    val sampling: Sampling
        get() {
            val (temperature, topK, topP, minP, repetitionPenalty) = AllMemNative.sampling(handle)
            return Sampling(temperature, topK.toInt(), topP, minP, repetitionPenalty)
        }

    /** How many tokens the model reads for this text. */
    fun countTokens(text: String): Int = AllMemNative.tokenize(handle, text.toByteArray()).size

    /** A new conversation. threads: 0 takes the fast cores; fewer save battery. */
    fun chat(system: String? = null, threads: Int = 2) =
        Chat(AllMemNative.createSession(handle, threads), system, sampling)

    override fun close() = AllMemNative.closeModel(handle)

    companion object {
        /** From a directory of files. */
        fun load(directory: File) = AllMem(AllMemNative.loadModel(directory.path.toByteArray()))

        /** From parts of open files, which may be closed afterwards. */
        fun load(pieces: List<ModelPiece>) =
            AllMem(
                AllMemNative.loadModel(
                    Array(pieces.size) { pieces[it].name.toByteArray() },
                    IntArray(pieces.size) { pieces[it].fd },
                    LongArray(pieces.size) { pieces[it].offset },
                    LongArray(pieces.size) { pieces[it].size },
                )
            )
    }
}

/**
 * A conversation that remembers. Calls wait for each other, so that an answer is over before the next one, or a save, begins.
 * close() waits for nobody: it ends a running answer, and whatever is called later throws IllegalStateException.
 */
class Chat internal constructor(
    private val handle: Long,
    private val system: String?,
    private val sampling: Sampling,
) : AutoCloseable {
    private val turn = Mutex()

    /**
     * The answer, piece by piece. Nothing happens until it is collected. Cancelling the collector ends the answer, also while a
     * long message is still being read, within one block of tokens; the chat then goes on from what it has read and said.
     */
    fun send(text: String, sampling: Sampling = this.sampling.copy(seed = Random.nextLong())): Flow<String> =
        channelFlow {
            turn.withLock {
                val first = if (system != null && position == 0L) listOf("system", system) else emptyList()
                val messages = first + listOf("user", text)
                AllMemNative.chat(
                    handle, Array(messages.size) { messages[it].toByteArray() }, sampling.temperature, sampling.topK,
                    sampling.topP, sampling.minP, sampling.repetitionPenalty, sampling.seed, sampling.maxTokens,
                ) { utf8 -> isActive && (utf8.isEmpty() || trySendBlocking(utf8.decodeToString()).isSuccess) }
            }
        }.flowOn(Dispatchers.IO)

    /** Ends a running answer; its flow completes with what was said so far. For a stop button. */
    fun stop() = AllMemNative.cancel(handle)

    /** Tokens read so far. While an answer runs: IllegalStateException. */
    val position: Long
        get() = AllMemNative.position(handle)

    /** Saves what the chat remembers; a crash at any moment leaves the old file or the new one. */
    suspend fun save(file: File) = alone { AllMemNative.save(handle, file.path.toByteArray()) }

    /** Goes on from a saved memory. FileNotFoundException when there is none, AllMemException when it is damaged or another model's. */
    suspend fun load(file: File) = alone { AllMemNative.load(handle, file.path.toByteArray()) }

    /** What save() would write, to encrypt it, say. */
    suspend fun snapshot(): ByteArray = alone { AllMemNative.snapshot(handle) }

    suspend fun restore(snapshot: ByteArray) = alone { AllMemNative.restore(handle, snapshot) }

    /** Frozen, the chat reads its long-term memory but learns nothing new. */
    suspend fun freeze(frozen: Boolean = true) = alone { AllMemNative.freeze(handle, frozen) }

    /** Forgets everything. */
    suspend fun reset() = alone { AllMemNative.reset(handle) }

    /** Forgets everything, and overwrites it. */
    suspend fun wipe() = alone { AllMemNative.wipe(handle) }

    override fun close() = AllMemNative.closeSession(handle)

    private suspend fun <T> alone(body: () -> T): T = turn.withLock { withContext(Dispatchers.IO) { body() } }
}
