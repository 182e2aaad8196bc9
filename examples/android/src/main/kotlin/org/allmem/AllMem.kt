// AllMem for Kotlin: a model, and chats whose answers are flows of text.
package org.allmem

import java.io.Closeable
import java.io.DataInputStream
import java.io.File
import java.io.FileNotFoundException
import java.io.IOException
import java.io.InputStream
import java.io.OutputStream
import java.lang.ref.PhantomReference
import java.lang.ref.ReferenceQueue
import java.util.concurrent.ConcurrentHashMap
import java.util.concurrent.atomic.AtomicInteger
import kotlin.concurrent.thread
import kotlin.random.Random
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.buffer
import kotlinx.coroutines.flow.channelFlow
import kotlinx.coroutines.flow.flowOn
import kotlinx.coroutines.isActive
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import kotlinx.coroutines.withContext

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
         * From a directory of files. window: tokens that are seen word for word, 0 as many as the model was trained with; fewer,
         * but no fewer than the model's chunk, take less memory. What was saved belongs to the same window and memory. check: read all files and compare them with the
         * SHA256SUMS beside them, once after a download (FileNotFoundException without SHA256SUMS).
         */
        fun load(directory: File, window: Int = 0, memory: Memory = Memory.ON, check: Boolean = false): AllMem =
            AllMem(AllMemNative.loadModel(directory.path.toByteArray(), window, memory.ordinal, check))

        /** Forgets a saved memory: also what a save that was killed may have left beside it. FileNotFoundException when there is none. */
        fun delete(memory: File) = AllMemNative.delete(memory.path.toByteArray())

        /** From parts of open files, which may be closed afterwards. To be checked they need SHA256SUMS among them. */
        fun load(pieces: List<ModelPiece>, window: Int = 0, memory: Memory = Memory.ON, check: Boolean = false): AllMem =
            AllMem(
                AllMemNative.loadModel(
                    Array(pieces.size) { pieces[it].name.toByteArray() },
                    IntArray(pieces.size) { pieces[it].fd },
                    LongArray(pieces.size) { pieces[it].offset },
                    LongArray(pieces.size) { pieces[it].size },
                    window,
                    memory.ordinal,
                    check,
                )
            )
    }
}

// --- Conversations --------------------------------------------------------------------------------------------------

/**
 * A conversation that remembers. Calls wait for each other, so that an answer is over before the next one, or a save, begins.
 * close() waits for nobody: it ends a running answer, and whatever is called later throws IllegalStateException.
 *
 * An answer never waits for its collector: a slow one, which shows word by word, is given what was written meanwhile. So a collector may
 * save, and ask again; and when it is cancelled, the chat may have said more than was shown.
 */
class Chat internal constructor(
    handle: Long,
    private val system: String?,
    private val sampling: Sampling,
    private val undoBytes: Long,
) : AutoCloseable {
    private val native = Owned(handle, AllMemNative.info(handle).totalBytes, AllMemNative::closeSession)
    private val turn = Mutex()
    private val stops = AtomicInteger()
    private val unread = mutableSetOf<File>() // memories that could not be loaded, and are not to be overwritten
    private val current = MutableStateFlow<Answer?>(null)

    /** How the answer goes that runs, or went that was the last: counts, a progress bar, why it ended. Null before the first and after an error. */
    val answer: StateFlow<Answer?> = current.asStateFlow()

    /**
     * The answer, piece by piece. Nothing happens until it is collected. Cancelling the collector ends the answer, also while a
     * long message is still being read, within one block of tokens; the chat then goes on from what it has read and said.
     */
    fun send(text: String, sampling: Sampling = this.sampling.copy(seed = Random.nextLong())): Flow<String> =
        stream { session, pieces ->
            val first = if (system != null && AllMemNative.position(session) == 0L) listOf("system", system) else emptyList()
            if (undoBytes > 0) AllMemNative.mark(session, undoBytes)
            try {
                with(sampling) {
                    AllMemNative.chat(
                        session, utf8(first + listOf("user", text)), temperature, topK, topP, minP, repetitionPenalty,
                        repetitionWindow, seed, maxTokens, utf8(stop), pieces,
                    )
                }
            } catch (error: Throwable) {
                if (undoBytes > 0) runCatching { AllMemNative.undo(session) } // no turn was taken
                throw error
            }
        }

    /**
     * Goes on with an answer that was cut short, as if it had never been. IllegalArgumentException when there is none: also when it was
     * stopped before anything of a long message was read (info().unfinished); send that again.
     */
    fun resume(): Flow<String> = stream(AllMemNative::resume)

    /**
     * Ends the answers that were asked for until now; their flows complete with what was said so far. For a stop button: it does nothing
     * when nothing runs.
     */
    fun stop() {
        stops.incrementAndGet()
        runCatching { native.use(AllMemNative::cancel) }
    }

    /** Tokens read so far. While an answer runs: IllegalStateException. */
    val position: Long
        get() = native.use(AllMemNative::position)

    /** What the chat is like when the answer is over. */
    suspend fun info(): AllMemNative.Info = alone(AllMemNative::info)

    /** Takes the last turn back, message and answer. IllegalArgumentException when none is kept (undoBytes of AllMem.chat()). */
    suspend fun undo() = alone(AllMemNative::undo)

    /**
     * Saves what the chat remembers; a crash at any moment leaves the old file or the new one. Once called it saves, even if its caller
     * is cancelled. A file that load() refused is not overwritten (IOException): move it away, or delete it. Nor is one that somebody else
     * has saved to since (AllMemException, ALLMEM_CONFLICT).
     */
    suspend fun save(file: File) = withContext(NonCancellable) {
        alone {
            if (file.absoluteFile in unread && file.exists()) {
                throw IOException("$file could not be loaded, and saving would overwrite it. Move it away, or delete it.")
            }
            AllMemNative.save(it, file.path.toByteArray())
        }
    }

    /** Goes on from a saved memory. FileNotFoundException when there is none, AllMemException when it is damaged or another model's. */
    suspend fun load(file: File) = alone {
        try {
            AllMemNative.load(it, file.path.toByteArray())
            unread -= file.absoluteFile
        } catch (error: Throwable) {
            if (error !is FileNotFoundException) unread += file.absoluteFile
            throw error
        }
    }

    /** The same to a stream, which may encrypt it; it is not closed. No copy of the state is made. */
    suspend fun save(stream: OutputStream) = withContext(NonCancellable) { alone { AllMemNative.save(it) { bytes -> stream.write(bytes) } } }

    /**
     * Goes on from what was saved to a stream. It is opened and read twice: to check it, and to take it. `size`: of what comes out of
     * it, which was saved.
     */
    suspend fun load(size: Long, open: () -> InputStream) = alone { session ->
        ReadAgain(open).use { AllMemNative.load(session, size, it) }
    }

    /** What save() would write, as a copy. */
    suspend fun snapshot(): ByteArray = alone(AllMemNative::snapshot)

    suspend fun restore(snapshot: ByteArray) = alone { AllMemNative.restore(it, snapshot) }

    /**
     * Frozen, the chat reads its long-term memory but learns nothing new. A long text that somebody pastes is read without forgetting
     * what was told before: freeze, send it, freeze(false).
     */
    suspend fun freeze(frozen: Boolean = true) = alone { AllMemNative.freeze(it, frozen) }

    /** Forgets everything. */
    suspend fun reset() = alone(AllMemNative::reset)

    /** Forgets everything, and overwrites it. */
    suspend fun wipe() = alone(AllMemNative::wipe)

    override fun close() = native.close()

    private suspend fun <T> alone(body: (Long) -> T): T =
        turn.withLock { withContext(Dispatchers.IO) { native.use(body) } }

    // The channel has no bound, so that writing into it never waits: a thread that waits in native code cannot be cancelled.
    private fun stream(write: (Long, AllMemNative.Pieces) -> AllMemNative.Answer): Flow<String> =
        channelFlow {
            val before = stops.get()
            val pieces = object : AllMemNative.Pieces {
                override fun progress(promptTokens: Long, promptLeft: Long, generatedTokens: Long) {
                    current.value = Answer(promptTokens, promptLeft, generatedTokens)
                }

                override fun piece(utf8: ByteArray): Boolean {
                    if (utf8.isNotEmpty()) trySend(utf8.decodeToString())
                    return isActive && stops.get() == before
                }
            }
            turn.withLock {
                var ended: Answer? = null
                current.value = Answer()
                try {
                    ended = if (stops.get() == before) native.use { write(it, pieces) }.figures() else Answer(finish = Finish.CANCELLED)
                } finally {
                    current.value = ended
                }
            }
        }.buffer(Channel.UNLIMITED).flowOn(Dispatchers.IO)
}

// A stream that is opened anew to go back in it.
private class ReadAgain(private val open: () -> InputStream) : AllMemNative.Source, Closeable {
    private var stream: DataInputStream? = null
    private var place = 0L

    override fun read(bytes: ByteArray, offset: Long) {
        if (offset < place) close()
        val opened = stream ?: DataInputStream(open()).also { stream = it }
        while (place < offset) fill(opened, ByteArray(minOf(offset - place, 1L shl 16).toInt()))
        fill(opened, bytes)
    }

    private fun fill(opened: DataInputStream, bytes: ByteArray) {
        opened.readFully(bytes)
        place += bytes.size
    }

    override fun close() {
        place = 0
        stream.also { stream = null }?.close()
    }
}

private fun AllMemNative.Answer.figures() =
    Answer(promptTokens, promptLeft, generatedTokens, Finish.of(finish), prefillSeconds, decodeSeconds)

private fun utf8(texts: List<String>) = Array(texts.size) { texts[it].toByteArray() }

// --- Native objects: closed by hand, or else once the garbage collector finds that nobody knows them any more ----------

/** What an object on Java's heap keeps of a native one of `bytes` bytes. */
internal class Owned(private val handle: Long, bytes: Long, close: (Long) -> Unit) {
    private val entry = Entry(this, handle, bytes, close)

    @Volatile private var inUse = false

    fun <T> use(body: (Long) -> T): T =
        try {
            body(handle)
        } finally {
            inUse = false // written after the call, so that this object is not collected within it
        }

    fun close() = entry.close()
}

// java.lang.ref.Cleaner does as much, but Android has it only since version 13.
private class Entry(owned: Owned, private val handle: Long, private val bytes: Long, private val closeHandle: (Long) -> Unit) :
    PhantomReference<Owned>(owned, forgotten) {

    init {
        open.add(this)
        opened(bytes)
    }

    fun close() {
        if (!open.remove(this)) return
        closed(bytes)
        closeHandle(handle)
    }

    companion object {
        private const val MANY_BYTES = 64L shl 20
        private val forgotten = ReferenceQueue<Owned>()
        private val open: MutableSet<Entry> = ConcurrentHashMap.newKeySet()
        private var held = 0L // bytes of all that are open
        private var limit = MANY_BYTES

        init {
            thread(isDaemon = true, name = "allmem-forgotten") { while (true) (forgotten.remove() as Entry).close() }
        }

        // The collector does not know how much native memory hangs on the small objects of its heap: when it has doubled, tell it.
        private fun opened(bytes: Long) {
            val many = synchronized(this) {
                held += bytes
                (held > limit).also { if (it) limit = 2 * held }
            }
            if (many) System.gc()
        }

        private fun closed(bytes: Long) = synchronized(this) {
            held -= bytes
            limit = minOf(limit, maxOf(MANY_BYTES, 2 * held))
        }
    }
}
