// The Android example's Kotlin classes on a desktop JVM: java org.allmem.AllMemTestKt MODEL_DIRECTORY
package org.allmem

import java.io.File
import java.io.FileNotFoundException
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.async
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.onEach
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking

private val greedy = Sampling(temperature = 0f, maxTokens = 48)
private val longText = "The weather was fine and we talked about the garden. ".repeat(20_000)

fun main(arguments: Array<String>) = runBlocking {
    val memory = File.createTempFile("allmem", ".memory")
    AllMem.load(File(arguments[0])).use { model ->
        suspend fun Chat.say(text: String) = send(text, greedy).toList().joinToString("")

        model.chat().use { chat ->
            check(model.sampling.temperature == 0.3f) { "the model's own sampling" }
            check(chat.send("Hello! 😀", greedy).toList().size > 1) { "an answer streams" }
            val before = chat.position
            val reading = launch { chat.send(longText, greedy).toList() }
            while (runCatching { chat.position }.exceptionOrNull() == null) delay(1) // in use: it reads
            reading.cancel()
            reading.join()
            check(chat.position - before < model.countTokens(longText) / 2) { "cancelling ends a prefill" }
            check(chat.say("Hello!").isNotEmpty()) { "the chat goes on" }
        }
        model.chat().use { chat ->
            chat.send("Hello!", Sampling(temperature = 50f, maxTokens = 1_000_000)).first()
            check(chat.position < 10_000) { "a collector that leaves ends the answer" }
            val started = CompletableDeferred<Unit>()
            val answer = async {
                chat.send("Hello!", Sampling(temperature = 50f, maxTokens = 1_000_000)).onEach { started.complete(Unit) }.toList()
            }
            started.await()
            chat.stop()
            check(answer.await().isNotEmpty() && chat.position < 20_000) { "stop() completes the flow" }
        }
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
            memory.delete()
            check(runCatching { chat.load(memory) }.exceptionOrNull() is FileNotFoundException) { "no file" }
            chat.close()
            check(runCatching { chat.say("x") }.exceptionOrNull() is IllegalStateException) { "closed" }
        }
    }
    println("ok  Kotlin: streaming, cancelling, stopping, remembering, closing")
}
