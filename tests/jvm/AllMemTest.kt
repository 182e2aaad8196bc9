// The Android example's Kotlin classes on a desktop JVM: java org.allmem.AllMemTestKt MODEL_DIRECTORY
package org.allmem

import android.content.res.AssetManager
import android.os.ParcelFileDescriptor
import java.io.ByteArrayInputStream
import java.io.ByteArrayOutputStream
import java.io.EOFException
import java.io.File
import java.io.FileNotFoundException
import java.io.IOException
import java.io.OutputStream
import java.nio.file.Files
import kotlin.time.Duration.Companion.seconds
import kotlin.time.measureTime
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.async
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.onEach
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout

private val patience = 100.seconds // what hangs, hangs for ever: a busy machine needs no less
private val greedy = Sampling(temperature = 0f, maxTokens = 48)
// 8,033 tokens after "Hello!": with most other seeds a stop token is drawn sooner, with some at once.
private val endless = Sampling(temperature = 50f, maxTokens = 1_000_000, seed = 5)
private val longText = "The weather was fine and we talked about the garden. ".repeat(20_000)
private val temporary = Files.createTempDirectory("allmem").toFile()
private lateinit var directory: File
private lateinit var model: AllMem

fun main(arguments: Array<String>) {
    directory = File(arguments[0])
    model = AllMem.load(directory)
    try {
        test("an answer streams, with the model's own sampling", ::streams)
        test("cancelling ends a prefill, and the chat goes on", ::cancelsPrefill)
        test("a collector that leaves ends the answer", ::leaves)
        test("a slow collector can be cancelled", ::cancelsSlowCollector)
        test("stop() completes the flow, also before the answer begins", ::stops)
        test("a collector may save, and ask again", ::savesWhileCollecting)
        test("a save that was asked for is made", ::savesWhenCancelled)
        test("closing ends a running answer", ::closesWhileRunning)
        test("it remembers", ::remembers)
        test("a memory goes through streams", ::streamsMemory)
        test("a memory that could not be loaded is not overwritten", ::keepsUnreadMemory)
        test("progress, counts and why it ended", ::counts)
        test("an answer that was cut short goes on", ::resumes)
        test("a turn is undone", ::undoes)
        test("a model's window and memory are chosen when it is loaded", ::choosesMemory)
        test("a damaged model is refused", ::checksFiles)
        test("assets are mapped, and no descriptor is left open", ::loadsAssets)
        test("chats that nobody closed are closed", ::closesForgotten)
    } finally {
        model.close()
        temporary.deleteRecursively()
    }
}

private suspend fun streams() = model.chat().use { chat ->
    check(model.sampling.temperature == 0.3f && model.sampling.repetitionWindow == 64) { "the model's own sampling" }
    check(chat.send("Hello! 😀", greedy).toList().size > 1) { "pieces" }
}

private suspend fun cancelsPrefill() = coroutineScope {
    model.chat().use { chat ->
        val reading = launch { chat.send(longText, greedy).collect() }
        chat.answer.first { it != null && it.promptTokens > 0 }
        reading.cancel()
        reading.join()
        val answer = checkNotNull(chat.answer.value)
        check(answer.finish == Finish.CANCELLED && answer.promptLeft > answer.promptTokens) { "most was not read: $answer" }
        check(chat.position == answer.promptTokens) { "what was read" }
        check(chat.say("Hello!").isNotEmpty()) { "the chat goes on" }
    }
}

private suspend fun leaves() = model.chat().use { chat ->
    chat.send("Hello!", endless).first()
    check(chat.position < 10_000) { "ended" }
}

// A typewriter, and a stop button. Whether the answer is over by itself meanwhile is the seed's choice.
private suspend fun cancelsSlowCollector() = coroutineScope {
    for (seed in 1L..5) {
        model.chat().use { chat ->
            val job = launch(Dispatchers.Default) {
                chat.send("Hello!", endless.copy(maxTokens = 400, seed = seed)).collect { delay(20) }
            }
            chat.answer.first { it != null && it.generatedTokens > 100 }
            job.cancel()
            withTimeout(patience) { job.join() }
            withTimeout(patience) { check(chat.say("Hello!").isNotEmpty()) { "the chat is free" } }
        }
    }
}

private suspend fun stops() = coroutineScope {
    model.chat().use { chat ->
        chat.stop() // nothing runs
        val started = CompletableDeferred<Unit>()
        val answer = async { chat.send("Hello!", endless).onEach { started.complete(Unit) }.toList() }
        val waiting = async(start = CoroutineStart.UNDISPATCHED) { chat.send("Hello!", endless).toList() }
        started.await()
        chat.stop()
        check(answer.await().isNotEmpty()) { "what was said so far" }
        check(waiting.await().size < 20_000 && chat.position < 20_000) { "the next one too, begun or not" }
        check(chat.answer.value?.finish == Finish.CANCELLED) { "known to be stopped" }
        chat.close()
        chat.stop()
    }
}

private suspend fun savesWhileCollecting() = coroutineScope {
    model.chat().use { chat ->
        val memory = File(temporary, "while collecting")
        var pieces = 0
        withTimeout(patience) {
            chat.send("Hello!", endless.copy(maxTokens = 300, seed = 1)).collect {
                if (pieces++ % 100 == 0) chat.save(memory)
                if (pieces == 150) check(chat.say("And you?").isNotEmpty()) { "asked again" }
            }
        }
        check(pieces > 150 && memory.exists()) { "saved" }
        memory.delete()
        val job: Job = launch(Dispatchers.Default) { chat.send("Hello!", endless).collect { chat.save(memory) } }
        chat.answer.first { it != null && it.finish == null && it.generatedTokens > 100 }
        job.cancel()
        withTimeout(patience) { job.join() }
        check(memory.exists()) { "saved when the answer had been cancelled" }
    }
}

// A screen that goes away: its coroutines are cancelled while the save waits for the answer.
private suspend fun savesWhenCancelled() = coroutineScope {
    model.chat().use { chat ->
        val memory = File(temporary, "cancelled")
        val answer = launch { chat.send("Hello!", endless).collect() }
        chat.answer.first { it != null && it.generatedTokens > 10 }
        val save = launch(start = CoroutineStart.UNDISPATCHED) { chat.save(memory) }
        save.cancel()
        check(!memory.exists()) { "it waits" }
        chat.stop()
        save.join()
        answer.join()
        check(memory.exists()) { "saved" }
    }
}

private suspend fun closesWhileRunning() = coroutineScope {
    val chat = model.chat()
    val answer = async(Dispatchers.Default) { chat.send("Hello!", endless).toList() }
    chat.answer.first { it != null && it.generatedTokens > 10 }
    chat.close()
    check(withTimeout(patience) { answer.await() }.isNotEmpty()) { "what was said so far" }
    fails<IllegalStateException> { chat.say("x") }
    fails<IllegalStateException> { chat.save(File(temporary, "closed")) }
    fails<IllegalStateException> { chat.position }
    chat.close()
}

private suspend fun remembers() {
    val memory = File(temporary, "memory 😀")
    model.chat().use { chat ->
        chat.say("Hi, I'm Tobias.")
        chat.save(memory)
    }
    model.chat(system = "Be kind.").use { chat ->
        chat.load(memory)
        check("Tobias" in chat.say("What is my name?")) { "it remembers" }
        chat.wipe()
        chat.restore(memory.readBytes())
        check(chat.snapshot().contentEquals(memory.readBytes())) { "a snapshot is what save() writes" }
        chat.reset()
        chat.freeze()
        check(chat.info().frozen && chat.position == 0L) { "reset and frozen" }
        memory.delete()
        fails<FileNotFoundException> { chat.load(memory) }
        chat.save(memory) // a first run
    }
}

private suspend fun streamsMemory() = model.chat().use { chat ->
    chat.say("Hi, I'm Tobias.")
    val stream = ByteArrayOutputStream()
    chat.save(stream)
    val bytes = stream.toByteArray()
    check(bytes.contentEquals(chat.snapshot())) { "the bytes of a file" }
    chat.reset()
    var opened = 0
    chat.load(bytes.size.toLong()) { ByteArrayInputStream(bytes).also { opened++ } }
    check(opened == 2 && "Tobias" in chat.say("What is my name?")) { "it remembers" }
    val position = chat.position
    fails<EOFException> { chat.load(bytes.size.toLong()) { ByteArrayInputStream(bytes, 0, bytes.size - 1) } }
    for (wrong in listOf(-1, 1)) fails<AllMemException> { chat.load(bytes.size.toLong() + wrong) { ByteArrayInputStream(bytes) } }
    fails<ArithmeticException> { chat.load(1) { throw ArithmeticException() } }
    fails<IOException> { chat.save(object : OutputStream() { override fun write(byte: Int) = throw IOException("full") }) }
    check(chat.position == position) { "nothing has changed" }

    val memory = File(temporary, "shared")
    chat.save(memory)
    model.chat().use { other ->
        other.load(memory)
        other.say("Hello!")
        other.save(memory)
    }
    check(runCatching { chat.save(memory) }.exceptionOrNull().let { it is AllMemException && it.status == "ALLMEM_CONFLICT" }) { "not overwritten" }
    AllMem.delete(memory)
    chat.save(memory)
    AllMem.delete(memory)
    fails<FileNotFoundException> { AllMem.delete(memory) }
}

private suspend fun keepsUnreadMemory() = model.chat().use { chat ->
    val memory = File(temporary, "damaged")
    memory.writeText("not a memory")
    fails<AllMemException> { chat.load(memory) }
    fails<IOException> { chat.save(memory) }
    fails<IOException> { chat.save(File(temporary.path, "damaged")) }
    check(memory.readText() == "not a memory") { "untouched" }
    chat.save(File(temporary, "another"))
    check(memory.renameTo(File(temporary, "set aside"))) { "set aside" }
    chat.save(memory)
    chat.load(memory)
    chat.save(memory)
}

private suspend fun counts() = model.chat(system = "Be kind.").use { chat ->
    check(chat.answer.value == null) { "none yet" }
    val whole = chat.say("Hello!")
    val answer = checkNotNull(chat.answer.value)
    check(answer.finish == Finish.STOP_TOKEN && answer.promptLeft == 0L) { "$answer" }
    check(answer.promptTokens + answer.generatedTokens == chat.position && answer.decodeSeconds > 0) { "$answer" }
    chat.reset()
    val stop = whole.substring(3, 5)
    val shown = chat.send("Hello!", greedy.copy(stop = listOf("no such text", stop))).toList().joinToString("")
    check(shown == whole.substringBefore(stop)) { "ends before the stop text: $shown" }
    check(chat.answer.value?.finish == Finish.STOP_TEXT) { "for that" }
    chat.send("Hello!", greedy.copy(maxTokens = 2)).collect()
    check(chat.answer.value.let { it?.finish == Finish.MAX_TOKENS && it.generatedTokens == 2L }) { "for its length" }
    fails<IllegalArgumentException> { chat.send("a\u0000b").collect() }
    check(chat.answer.value == null) { "none after an error" }
}

private suspend fun resumes() = model.chat().use { chat ->
    val whole = chat.say("Hello!")
    chat.reset()
    fails<IllegalArgumentException> { chat.resume().collect() }
    val text = StringBuilder(chat.send("Hello!", greedy).onEach { chat.stop() }.toList().joinToString(""))
    while (chat.info().unfinished) text.append(chat.resume().onEach { chat.stop() }.toList().joinToString(""))
    check("$text" == whole) { "as if never stopped: $text" }
}

private suspend fun undoes() = model.chat(undoBytes = 1L shl 30).use { chat ->
    val first = chat.say("Hello!")
    val position = chat.position
    chat.say("How are you?")
    fails<IllegalArgumentException> { chat.send("a\u0000b").collect() } // no turn
    chat.undo()
    check(chat.position == position) { "after the first turn" }
    chat.undo()
    check(chat.position == 0L && chat.say("Hello!") == first) { "at the beginning" }
    chat.undo()
    fails<IllegalArgumentException> { chat.undo() }
}

private suspend fun choosesMemory() {
    val states = Memory.values().map { choice -> AllMem.load(directory, memory = choice).use { it.stateBytes } }
    check(states[0] > states[1] && states[1] > states[2]) { "bytes of the state: $states" }
    AllMem.load(directory, window = 4096).use { wide ->
        check(wide.stateBytes > states[0]) { "a wider window: ${wide.stateBytes} bytes" }
        wide.chat().use { check(it.say("Hello!").isNotEmpty()) { "an answer" } }
    }
}

private suspend fun checksFiles() {
    val copy = File(temporary, "model").also { directory.copyRecursively(it) }
    AllMem.load(copy, check = true).use { model -> model.chat().use { check(it.say("Hello!").isNotEmpty()) { "an answer" } } }
    File(copy, "tokenizer_config.json").appendText(" ")
    val refused = runCatching { AllMem.load(copy, check = true) }.exceptionOrNull()
    check(refused is AllMemException && refused.status == "ALLMEM_BAD_MODEL" && "tokenizer_config.json" in refused.message!!) { "$refused" }
    File(copy, "SHA256SUMS").delete()
    fails<FileNotFoundException> { AllMem.load(copy, check = true) }
    AllMem.load(copy).close()
}

private suspend fun loadsAssets() {
    val root = directory.parentFile.toPath()
    val before = ParcelFileDescriptor.numbersOf(root).size
    for (compressed in listOf("tokenizer.json", "model.onnx", "model.onnx.data")) {
        fails<FileNotFoundException> { AllMem.load(AssetManager(root, compressed), directory.name) }
    }
    check(ParcelFileDescriptor.numbersOf(root).size == before) { "none is left open" }
    fails<IllegalArgumentException> { AllMem.load(AssetManager(root, "-"), "no such directory") }
    AllMem.load(AssetManager(root, "-"), directory.name).use { loaded ->
        check(ParcelFileDescriptor.numbersOf(root).size == before) { "none is left open" }
        loaded.chat().use { chat -> model.chat().use { check(chat.say("Hello!") == it.say("Hello!")) { "the same model" } } }
    }
}

// 200 of them are some 600 MB: without help from the garbage collector they would stay until their objects fill the heap.
private suspend fun closesForgotten() {
    val before = residentMegabytes()
    repeat(200) { model.chat(threads = 1).say("Hi!") }
    check(residentMegabytes() - before < 200) { "grown by ${residentMegabytes() - before} MB" }
    AllMem.load(directory).chat(threads = 1).send("Hello!", endless.copy(maxTokens = 300, seed = 1)).collect { System.gc() }
}

// --- help --------------------------------------------------------------------------------------------------------

private fun test(property: String, body: suspend () -> Unit) {
    val time = measureTime { runBlocking { withTimeout(patience * 3) { body() } } }
    println("ok  $property ($time)")
}

private suspend fun Chat.say(text: String) = send(text, greedy).toList().joinToString("")

private inline fun <reified E : Throwable> fails(action: () -> Unit) {
    val thrown = runCatching(action).exceptionOrNull()
    if (thrown !is E) throw AssertionError("expected ${E::class.java}", thrown)
}

private fun residentMegabytes() =
    File("/proc/self/status").readLines().first { it.startsWith("VmRSS:") }.filter { it.isDigit() }.toLong() / 1024
