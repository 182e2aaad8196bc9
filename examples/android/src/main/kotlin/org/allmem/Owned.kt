// Native objects: closed by hand, or else once the garbage collector finds that nobody knows them any more.
package org.allmem

import java.lang.ref.PhantomReference
import java.lang.ref.ReferenceQueue
import java.util.concurrent.ConcurrentHashMap
import kotlin.concurrent.thread

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
