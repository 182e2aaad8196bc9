// The Android example's native methods on a desktop JVM: java -Xcheck:jni org.allmem.AllMemNativeTest MODEL_DIRECTORY CYCLES
package org.allmem;

import static java.nio.charset.StandardCharsets.UTF_8;

import android.os.ParcelFileDescriptor;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.Collectors;
import java.util.stream.Stream;

public final class AllMemNativeTest {
  private interface Action {
    void run() throws Exception;
  }

  private static final String EMOJI = "Zoë 😀 👩‍👩‍👧 日本 \uD834\uDD1E";
  private static final byte[][] NO_TEXTS = {};
  private static Path directory;  // of the model
  private static Path temporary;
  private static long model;

  private AllMemNativeTest() {}

  public static void main(String[] arguments) throws Exception {
    directory = Path.of(arguments[0]);
    temporary = Files.createTempDirectory("allmem").toRealPath();
    try {
      model = load(utf8(directory.toString()));
      test("an answer streams in whole characters", AllMemNativeTest::streams);
      test("emoji come back as they were", AllMemNativeTest::keepsEmoji);
      test("a model loads from parts of one open file", AllMemNativeTest::loadsFromDescriptors);
      test("what was saved is remembered", AllMemNativeTest::remembers);
      test("cancel from another thread ends a prefill", AllMemNativeTest::cancelsPrefill);
      test("a piece ends its answer, also before there is text", AllMemNativeTest::pieceEnds);
      test("an exception of a piece comes out", AllMemNativeTest::pieceThrows);
      test("progress counts what is read and written", AllMemNativeTest::countsProgress);
      test("a stop text ends an answer", AllMemNativeTest::stopsAtText);
      test("an answer that was cut short goes on", AllMemNativeTest::resumes);
      test("a turn is undone", AllMemNativeTest::undoes);
      test("closing ends a running answer", AllMemNativeTest::closesWhileRunning);
      test("a session has one caller", AllMemNativeTest::refusesSecondCaller);
      test("what is closed is refused", AllMemNativeTest::refusesClosed);
      test("a wrong argument is refused", AllMemNativeTest::refusesArguments);
      test("opening and closing leaks nothing", () -> leaksNothing(Integer.parseInt(arguments[1])));
      AllMemNative.closeModel(model);
    } finally {
      try (Stream<Path> left = Files.list(temporary)) {
        for (Path path : left.collect(Collectors.toList())) Files.delete(path);
      }
      Files.delete(temporary);
    }
  }

  private static void streams() throws Exception {
    final long session = session();
    check(!say(session, "Hello!").isEmpty(), "an answer");
    check(Arrays.equals(AllMemNative.sampling(model), new float[] {0.3f, 0, 0.9f, 0, 1, 64}), "what the model asks for");
    // Hot enough that nearly every token is drawn at random: characters break between tokens. Hundreds of pieces would also
    // overflow the table of local references if one were kept.
    final List<byte[]> pieces = new ArrayList<>();
    final AllMemNative.Answer answer = chat(session, "Go on!", 50, 600, pieces::add);
    check(pieces.size() > 100, "many pieces");
    for (byte[] piece : pieces) decodeStrictly(piece);
    check(answer.generatedTokens >= pieces.size() - 1 && answer.decodeSeconds > 0, "figures of the answer");
    AllMemNative.closeSession(session);
  }

  private static void keepsEmoji() throws Exception {
    final int[] ids = AllMemNative.tokenize(model, utf8(EMOJI));
    check(new String(AllMemNative.detokenize(model, ids), UTF_8).equals(EMOJI), "the same text");
    final long frame = promptTokens("x") - AllMemNative.tokenize(model, utf8("x")).length;
    check(promptTokens(EMOJI) == frame + ids.length, "all of it is read");
  }

  private static void loadsFromDescriptors() throws Exception {
    final String[] names = {"model.onnx", "model.onnx.data", "tokenizer.json", "generation_config.json"};
    final Path apk = temporary.resolve("apk");
    final byte[][] nameBytes = new byte[names.length][];
    final int[] fds = new int[names.length];
    final long[] offsets = new long[names.length], sizes = new long[names.length];
    Files.write(apk, utf8("some other asset"));
    for (int i = 0; i < names.length; i++) {
      nameBytes[i] = utf8(names[i]);
      offsets[i] = Files.size(apk);
      sizes[i] = Files.size(directory.resolve(names[i]));
      Files.write(apk, Files.readAllBytes(directory.resolve(names[i])), StandardOpenOption.APPEND);
    }
    final long loaded;
    try (RandomAccessFile file = new RandomAccessFile(apk.toFile(), "r")) {
      check(file.length() > sizes[1], "an archive of all files");
      Arrays.fill(fds, ParcelFileDescriptor.numbersOf(apk).get(0));
      loaded = load(nameBytes, fds, offsets, sizes);
      fails(
          FileNotFoundException.class, // no SHA256SUMS among them
          () -> AllMemNative.loadModel(nameBytes, fds, offsets, sizes, 0, AllMemNative.MEMORY_ON, true));
      sizes[0] = Long.MAX_VALUE;
      fails(IllegalArgumentException.class, () -> load(nameBytes, fds, offsets, sizes));
    }
    final long session = AllMemNative.createSession(loaded, 1), other = session();
    check(say(session, "Good morning!").equals(say(other, "Good morning!")), "the answer of the model in its directory");
    AllMemNative.closeModel(loaded);
    check(!say(session, "How are you?").isEmpty(), "a session outlives its model");
    AllMemNative.closeSession(session);
    AllMemNative.closeSession(other);
  }

  private static void remembers() throws Exception {
    final byte[] path = utf8(temporary + "/memory 😀");
    final long first = session();
    say(first, "Hi, I'm Tobias.");
    AllMemNative.save(first, path);
    final byte[] snapshot = AllMemNative.snapshot(first);
    AllMemNative.closeSession(first);

    final long second = session(), third = session();
    AllMemNative.load(second, path);
    AllMemNative.restore(third, snapshot);
    check(Arrays.equals(AllMemNative.snapshot(second), snapshot), "file and snapshot are the same");
    final String answer = say(second, "What is my name?");
    check(answer.contains("Tobias"), "it remembers: " + answer);
    check(say(third, "What is my name?").equals(answer), "the snapshot does as well");
    AllMemNative.wipe(third);
    check(AllMemNative.position(third) == 0 && !say(third, "What is my name?").contains("Tobias"), "wiped");
    AllMemNative.reset(second);
    check(AllMemNative.position(second) == 0, "reset");

    snapshot[snapshot.length / 2] ^= 1;
    final Throwable refused = fails(AllMemException.class, () -> AllMemNative.restore(second, snapshot));
    check(((AllMemException) refused).status.equals("ALLMEM_BAD_SNAPSHOT"), "a damaged snapshot");
    AllMemNative.closeSession(second);
    AllMemNative.closeSession(third);
  }

  private static void cancelsPrefill() throws Exception {
    final long session = session();
    final CountDownLatch reading = new CountDownLatch(1);
    final Thread canceller = new Thread(() -> {
      try {
        reading.await();
      } catch (InterruptedException e) {
        throw new AssertionError(e);
      }
      AllMemNative.cancel(session);
    });
    canceller.start();
    final AllMemNative.Answer answer = chat(session, longText(), 0, 10, piece -> {
      reading.countDown();
      try {
        canceller.join();  // so that the cancel is there when the first block of tokens has been read
      } catch (InterruptedException e) {
        throw new AssertionError(e);
      }
      return true;
    });
    check(answer.finish == AllMemNative.FINISH_CANCELLED && answer.generatedTokens == 0, "cancelled");
    check(answer.promptTokens == 128 && AllMemNative.position(session) == 128, "within one block");
    check(!say(session, "Hello!").isEmpty(), "the session goes on");
    AllMemNative.closeSession(session);
  }

  private static void pieceEnds() throws Exception {
    final long session = session();
    AllMemNative.Answer answer = chat(session, longText(), 0, 10, piece -> false);
    check(answer.finish == AllMemNative.FINISH_CANCELLED && answer.promptTokens == 128, "ended in the prefill");
    answer = chat(session, "Hello!", 0, 10, piece -> false);
    check(answer.finish == AllMemNative.FINISH_CANCELLED && answer.generatedTokens == 1, "ended at the first piece");
    AllMemNative.closeSession(session);
  }

  private static void pieceThrows() throws Exception {
    final long session = session();
    final Throwable thrown = fails(ArithmeticException.class, () -> chat(session, "Hello!", 0, 10, piece -> {
      throw new ArithmeticException("mine");
    }));
    check(thrown.getMessage().equals("mine"), "the very exception");
    check(!say(session, "Hello!").isEmpty(), "the session goes on");
    AllMemNative.closeSession(session);
  }

  private static void countsProgress() throws Exception {
    final long session = session();
    final List<Long> left = new ArrayList<>(), generated = new ArrayList<>();
    final AllMemNative.Answer answer = chat(session, longText(), 0, 2, new AllMemNative.Pieces() {
      @Override
      public boolean piece(byte[] utf8) {
        return true;
      }

      @Override
      public void progress(long promptTokens, long promptLeft, long generatedTokens) {
        left.add(promptLeft);
        generated.add(generatedTokens);
      }
    });
    check(answer.finish == AllMemNative.FINISH_MAX_TOKENS && answer.promptLeft == 0, "all was read");
    check(left.get(0) == answer.promptTokens - 128 && left.get(1) == answer.promptTokens - 256, "block by block");
    check(generated.get(0) == 0 && generated.get(generated.size() - 1) == 2, "then the answer: " + generated);
    fails(ArithmeticException.class, () -> chat(session, "Hello!", 0, 10, new AllMemNative.Pieces() {
      @Override
      public boolean piece(byte[] utf8) {
        return true;
      }

      @Override
      public void progress(long promptTokens, long promptLeft, long generatedTokens) {
        throw new ArithmeticException();
      }
    }));
    AllMemNative.closeSession(session);
  }

  private static void stopsAtText() throws Exception {
    final long whole = session(), session = session();
    final String answer = say(whole, "Hello!"), stop = answer.substring(3, 5);
    final StringBuilder shown = new StringBuilder();
    final AllMemNative.Answer stopped = AllMemNative.chat(
        session, new byte[][] {utf8("user"), utf8("Hello!")}, 0, 0, 1, 0, 1, 64, 7, 48,
        new byte[][] {utf8("no such text"), utf8(stop)}, piece -> shown.append(new String(piece, UTF_8)) != null);
    check(stopped.finish == AllMemNative.FINISH_STOP_TEXT, "why it ended");
    check(shown.toString().equals(answer.substring(0, answer.indexOf(stop))), "what comes before: " + shown);
    AllMemNative.closeSession(whole);
    AllMemNative.closeSession(session);
  }

  private static void resumes() throws Exception {
    final long whole = session(), session = session();
    final String answer = say(whole, "Hello!");
    final StringBuilder text = new StringBuilder();
    final AllMemNative.Pieces once = piece -> {
      text.append(new String(piece, UTF_8));
      return false;
    };
    check(chat(session, "Hello!", 0, 48, once).finish == AllMemNative.FINISH_CANCELLED, "cut short");
    check(AllMemNative.info(session).unfinished, "known to be");
    while (AllMemNative.resume(session, once).finish == AllMemNative.FINISH_CANCELLED) {}
    check(text.toString().equals(answer), "the same answer: " + text);
    check(!AllMemNative.info(session).unfinished, "finished");
    AllMemNative.closeSession(whole);
    AllMemNative.closeSession(session);
  }

  private static void undoes() throws Exception {
    final long session = session();
    AllMemNative.mark(session, 0);
    final String first = say(session, "Hello!");
    final long position = AllMemNative.position(session);
    AllMemNative.mark(session, 1L << 40);
    say(session, "How are you?");
    final AllMemNative.Info info = AllMemNative.info(session);
    check(info.marks == 2 && info.markBytes > info.stateBytes && info.totalBytes > info.stateBytes, "two marks");
    AllMemNative.undo(session);
    check(AllMemNative.position(session) == position, "back after the first turn");
    AllMemNative.undo(session);
    check(AllMemNative.position(session) == 0 && say(session, "Hello!").equals(first), "back at the beginning");
    AllMemNative.closeSession(session);
  }

  private static void closesWhileRunning() throws Exception {
    final long session = session();
    final AllMemNative.Answer answer = chat(session, longText(), 0, 10, piece -> {
      AllMemNative.closeSession(session);
      return true;
    });
    check(answer.finish == AllMemNative.FINISH_CANCELLED && answer.promptTokens == 128, "ended");
    fails(IllegalStateException.class, () -> AllMemNative.position(session));
  }

  private static void refusesSecondCaller() throws Exception {
    final long session = session();
    final AtomicReference<Throwable> seen = new AtomicReference<>();
    chat(session, "Hello!", 0, 10, piece -> {
      final Thread other = new Thread(() -> {
        try {
          AllMemNative.position(session);
        } catch (Throwable e) {
          seen.set(e);
        }
      });
      other.start();
      try {
        other.join();
      } catch (InterruptedException e) {
        throw new AssertionError(e);
      }
      return false;
    });
    check(seen.get() instanceof IllegalStateException, "refused: " + seen.get());
    AllMemNative.closeSession(session);
  }

  private static void refusesClosed() throws Exception {
    final long session = session(), closedModel = load(utf8(directory.toString()));
    AllMemNative.closeSession(session);
    AllMemNative.closeSession(session);  // again, and what never was: without effect
    AllMemNative.closeModel(closedModel);
    AllMemNative.closeModel(closedModel);
    AllMemNative.closeModel(session);
    final byte[] text = utf8("x");
    for (long handle : new long[] {session, model, 0, -1, Long.MAX_VALUE}) {
      for (Action action : List.<Action>of(
          () -> chat(handle, "x", 0, 1, null), () -> AllMemNative.resume(handle, null), () -> AllMemNative.cancel(handle),
          () -> AllMemNative.position(handle), () -> AllMemNative.mark(handle, 0), () -> AllMemNative.undo(handle),
          () -> AllMemNative.freeze(handle, true), () -> AllMemNative.reset(handle), () -> AllMemNative.wipe(handle),
          () -> AllMemNative.save(handle, text), () -> AllMemNative.load(handle, text), () -> AllMemNative.snapshot(handle),
          () -> AllMemNative.restore(handle, text), () -> AllMemNative.save(handle, bytes -> {}),
          () -> AllMemNative.load(handle, 1, (bytes, offset) -> {}))) {
        fails(IllegalStateException.class, action);
      }
    }
    for (Action action : List.<Action>of(
        () -> AllMemNative.stateBytes(closedModel), () -> AllMemNative.sampling(closedModel),
        () -> AllMemNative.tokenize(closedModel, text),
        () -> AllMemNative.detokenize(closedModel, new int[1]), () -> AllMemNative.createSession(closedModel, 1))) {
      fails(IllegalStateException.class, action);
    }
  }

  private static void refusesArguments() throws Exception {
    final long session = session();
    fails(FileNotFoundException.class, () -> load(utf8("/no/such/model")));
    fails(FileNotFoundException.class, () -> AllMemNative.load(session, utf8("/no/such/memory")));
    fails(IOException.class, () -> AllMemNative.save(session, utf8("/no/such/directory/memory")));
    final Throwable unknown = fails(FileNotFoundException.class, () -> load(utf8("/no/such/😀")));
    check(!unknown.getMessage().isEmpty(), "a sentence");
    for (Action action : List.<Action>of(
        () -> load(null),
        () -> AllMemNative.loadModel(utf8(directory.toString()), -1, 0, false),
        () -> AllMemNative.loadModel(utf8(directory.toString()), 0, 3, false),
        () -> load(null, null, null, null),
        () -> load(new byte[][] {utf8("model.onnx")}, new int[0], new long[1], new long[1]),
        () -> load(new byte[][] {utf8("model.onnx")}, new int[1], new long[] {-1}, new long[1]),
        () -> load(new byte[][] {null}, new int[1], new long[1], new long[1]),
        () -> AllMemNative.tokenize(model, null), () -> AllMemNative.detokenize(model, null),
        () -> AllMemNative.detokenize(model, new int[] {-1}), () -> AllMemNative.createSession(model, -1),
        () -> AllMemNative.save(session, (byte[]) null), () -> AllMemNative.load(session, null),
        () -> AllMemNative.save(session, (AllMemNative.Sink) null), () -> AllMemNative.load(session, 1, null),
        () -> AllMemNative.load(session, -1, (bytes, offset) -> {}), () -> AllMemNative.delete(null),
        () -> AllMemNative.save(session, utf8("a\0b")), () -> AllMemNative.restore(session, null),
        () -> chat(session, "a\0b", 0, 1, null), () -> chat(session, "x", Float.NaN, 1, null),
        () -> chat(session, "x", 0, -1, null),
        () -> AllMemNative.resume(session, null), () -> AllMemNative.undo(session), () -> AllMemNative.mark(session, -1),
        () -> stopAt(session, (byte[][]) null), () -> stopAt(session, (byte[]) null), () -> stopAt(session, utf8("")),
        () -> stopAt(session, utf8("a\0b")),
        () -> AllMemNative.chat(session, null, 0, 0, 1, 0, 1, 64, 0, 1, NO_TEXTS, null),
        () -> AllMemNative.chat(session, new byte[0][], 0, 0, 1, 0, 1, 64, 0, 1, NO_TEXTS, null),
        () -> AllMemNative.chat(session, new byte[][] {utf8("user")}, 0, 0, 1, 0, 1, 64, 0, 1, NO_TEXTS, null),
        () -> AllMemNative.chat(session, new byte[][] {utf8("user"), null}, 0, 0, 1, 0, 1, 64, 0, 1, NO_TEXTS, null),
        () -> AllMemNative.chat(session, new byte[][] {utf8("fool"), utf8("x")}, 0, 0, 1, 0, 1, 64, 0, 1, NO_TEXTS, null))) {
      fails(IllegalArgumentException.class, action);
    }
    fails(AllMemException.class, () -> AllMemNative.restore(session, new byte[0]));
    check(AllMemNative.position(session) == 0, "nothing was read");
    check(AllMemNative.tokenize(model, new byte[0]).length == 0, "no text, no tokens");
    AllMemNative.freeze(session, true);
    AllMemNative.closeSession(session);
  }

  private static void leaksNothing(int cycles) throws Exception {
    final byte[] path = utf8(directory.toString());
    final Action cycle = () -> {
      final long loaded = load(path), session = AllMemNative.createSession(loaded, 1);
      AllMemNative.closeModel(loaded);
      final AtomicInteger pieces = new AtomicInteger();
      chat(session, "Hi!", 0, 2, piece -> pieces.incrementAndGet() > 0);
      AllMemNative.closeSession(session);
    };
    for (int i = 0; i < cycles / 10; i++) cycle.run();
    final long before = residentKilobytes();
    for (int i = 0; i < cycles; i++) cycle.run();
    final long grown = residentKilobytes() - before;
    // A session holds more than 2.6 MB: of a thousand, losing one in a hundred would show.
    check(grown < 24 << 10, "grown by " + grown + " KB");
  }

  // --- help ------------------------------------------------------------------------------------------------

  private static void test(String property, Action body) throws Exception {
    final long start = System.nanoTime();
    body.run();
    System.out.printf("ok  %s (%.1f s)%n", property, (System.nanoTime() - start) / 1e9);
  }

  private static void check(boolean condition, String what) {
    if (!condition) throw new AssertionError(what);
  }

  private static Throwable fails(Class<? extends Throwable> expected, Action action) {
    try {
      action.run();
    } catch (Throwable thrown) {
      if (expected.isInstance(thrown)) return thrown;
      throw new AssertionError("expected " + expected, thrown);
    }
    throw new AssertionError("expected " + expected + ", but nothing was thrown");
  }

  private static byte[] utf8(String text) {
    return text.getBytes(UTF_8);
  }

  private static void decodeStrictly(byte[] utf8) throws CharacterCodingException {
    UTF_8.newDecoder().onMalformedInput(CodingErrorAction.REPORT).decode(ByteBuffer.wrap(utf8));
  }

  private static long load(byte[] path) throws IOException {
    return AllMemNative.loadModel(path, 0, AllMemNative.MEMORY_ON, false);
  }

  private static long load(byte[][] names, int[] fds, long[] offsets, long[] sizes) throws IOException {
    return AllMemNative.loadModel(names, fds, offsets, sizes, 0, AllMemNative.MEMORY_ON, false);
  }

  private static long session() {
    return AllMemNative.createSession(model, 1);
  }

  private static AllMemNative.Answer chat(
      long session, String text, float temperature, long maxTokens, AllMemNative.Pieces pieces) {
    return AllMemNative.chat(
        session, new byte[][] {utf8("user"), utf8(text)}, temperature, 0, 1, 0, 1, 64, 7, maxTokens, NO_TEXTS, pieces);
  }

  private static AllMemNative.Answer stopAt(long session, byte[]... stop) {
    return AllMemNative.chat(session, new byte[][] {utf8("user"), utf8("x")}, 0, 0, 1, 0, 1, 64, 7, 1, stop, null);
  }

  private static String say(long session, String text) {
    final StringBuilder answer = new StringBuilder();
    chat(session, text, 0, 48, piece -> {
      answer.append(new String(piece, UTF_8));
      return true;
    });
    return answer.toString();
  }

  private static long promptTokens(String text) {
    final long session = session();
    final long tokens = chat(session, text, 0, 0, null).promptTokens;
    AllMemNative.closeSession(session);
    return tokens;
  }

  private static String longText() {
    return "The weather was fine and we talked about the garden. ".repeat(100);
  }

  private static long residentKilobytes() throws IOException {
    for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
      if (line.startsWith("VmRSS:")) return Long.parseLong(line.replaceAll("[^0-9]", ""));
    }
    throw new IOException("no VmRSS");
  }
}
