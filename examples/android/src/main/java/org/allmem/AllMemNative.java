// The native methods that allmem_jni.cpp implements: what AllMem.kt, or Java code of your own, builds on.
package org.allmem;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;

/**
 * The functions of allmem.h, one to one, for the JVM and for Android.
 *
 * <p>Text is UTF-8 in byte arrays: {@code text.getBytes(UTF_8)}, {@code new String(utf8, UTF_8)}. JNI's own strings are "modified
 * UTF-8", in which an emoji is something else. Text has no NUL.
 *
 * <p>A handle is a number that is never used twice. One that is closed is refused with IllegalStateException, from any thread;
 * closing while a call runs ends that call soon, and its memory is freed when it has returned. Closing again does nothing.
 * Nothing waits for the garbage collector.
 *
 * <p>A session has one caller at a time (else IllegalStateException); {@link #cancel} and {@link #closeSession} may come from any thread.
 *
 * <p>Failures: IllegalArgumentException, FileNotFoundException, IOException, OutOfMemoryError, and AllMemException for the rest.
 */
public final class AllMemNative {
  /** Why an answer ended: the values of allmem_finish. */
  public static final int FINISH_STOP_TOKEN = 1, FINISH_STOP_TEXT = 2, FINISH_MAX_TOKENS = 3, FINISH_CANCELLED = 4;

  static {
    System.loadLibrary("allmem_jni");
  }

  private AllMemNative() {}

  /** Receives an answer piece by piece, on the thread that asked for it. */
  public interface Pieces {
    /**
     * @param utf8 whole characters; empty between the blocks of tokens of a long message, while it is read
     * @return false to end the answer. An exception ends it too, and comes out of chat().
     */
    boolean piece(byte[] utf8);

    /** Called before each piece(): tokens of the message that were read, that are still to be read, and of the answer so far. */
    default void progress(long promptTokens, long promptLeft, long generatedTokens) {}
  }

  /** Receives a snapshot in pieces of at most 1 MiB. */
  public interface Sink {
    void write(byte[] bytes) throws IOException;
  }

  /** Gives a snapshot's bytes: in their order, and most of them once more. */
  public interface Source {
    /** Fills all of `bytes` with those from `offset` on. */
    void read(byte[] bytes, long offset) throws IOException;
  }

  /** How an answer went. */
  public static final class Answer {
    /** One of FINISH_...; a newer library may have others. */
    public final int finish;

    /** Tokens: of the message, read and (where reading was cancelled) not read; and of the answer. */
    public final long promptTokens, promptLeft, generatedTokens;

    public final double prefillSeconds, decodeSeconds;

    Answer(int finish, long promptTokens, long promptLeft, long generatedTokens, double prefillSeconds, double decodeSeconds) {
      this.finish = finish;
      this.promptTokens = promptTokens;
      this.promptLeft = promptLeft;
      this.generatedTokens = generatedTokens;
      this.prefillSeconds = prefillSeconds;
      this.decodeSeconds = decodeSeconds;
    }
  }

  /** What a session is like. */
  public static final class Info {
    /** Tokens read so far. */
    public final long position;

    /** Bytes: of the state, of all but the marks, and of the marks. */
    public final long stateBytes, totalBytes, markBytes;

    /** How often undo() can go back. */
    public final int marks;

    /** An answer was cut short, and resume() can go on with it. */
    public final boolean unfinished;

    public final boolean frozen;

    Info(long position, long stateBytes, long totalBytes, long markBytes, int marks, boolean unfinished, boolean frozen) {
      this.position = position;
      this.stateBytes = stateBytes;
      this.totalBytes = totalBytes;
      this.markBytes = markBytes;
      this.marks = marks;
      this.unfinished = unfinished;
      this.frozen = frozen;
    }
  }

  /** What a model does with its memory: the values of allmem_memory. */
  public static final int MEMORY_ON = 0, MEMORY_FROZEN = 1, MEMORY_OFF = 2;

  /**
   * From a directory. The files stay mapped: do not change them.
   *
   * @param window tokens; 0: as the model was trained
   * @param memory one of MEMORY_...
   * @param check reads all files and compares them with the SHA256SUMS beside them, as after a download
   */
  public static native long loadModel(byte[] path, int window, int memory, boolean check) throws IOException;

  /**
   * From parts of open files, as AssetFileDescriptor gives them; they may be closed afterwards.
   *
   * @param names "model.onnx", "model.onnx.data", "tokenizer.json" and the model's other .json files
   * @param check compares all of them with SHA256SUMS, which must be among them
   */
  public static native long loadModel(
      byte[][] names, int[] fds, long[] offsets, long[] sizes, int window, int memory, boolean check) throws IOException;

  /** Sessions of the model go on. */
  public static native void closeModel(long model);

  /** Bytes of one session's memory, however much it reads. */
  public static native long stateBytes(long model);

  /** How the model is best drawn from: temperature, topK, topP, minP, repetitionPenalty, repetitionWindow. */
  public static native float[] sampling(long model);

  public static native int[] tokenize(long model, byte[] text);

  public static native byte[] detokenize(long model, int[] ids);

  /** @param threads 0: one for each fast core */
  public static native long createSession(long model, int threads);

  public static native void closeSession(long session);

  /**
   * Reads messages and streams the answer. It blocks: call it on a thread of its own.
   *
   * @param messages roles ("system", "user", "assistant") and contents in turn
   * @param stop texts that end the answer and are not shown
   * @param pieces may be null
   */
  public static native Answer chat(
      long session, byte[][] messages, float temperature, int topK, float topP, float minP, float repetitionPenalty,
      int repetitionWindow, long seed, long maxTokens, byte[][] stop, Pieces pieces);

  /** Goes on with an answer that was cut short, as if it had never been. IllegalArgumentException when there is none. */
  public static native Answer resume(long session, Pieces pieces);

  /** From any thread: a running chat() returns within one block of tokens. Without effect when none runs. */
  public static native void cancel(long session);

  public static native Info info(long session);

  /** Tokens read so far. */
  public static long position(long session) {
    return info(session).position;
  }

  /** Keeps the present state for undo(). The oldest are dropped so that all take at most maxBytes; the newest stays. */
  public static native void mark(long session, long maxBytes);

  /** Back to the newest mark, which is used up. IllegalArgumentException when there is none. */
  public static native void undo(long session);

  /** Frozen, the long-term memory is read but not written. */
  public static native void freeze(long session, boolean frozen);

  /** As new. */
  public static native void reset(long session);

  /** As new, and every byte that the session held is overwritten. */
  public static native void wipe(long session);

  /** Atomic: a crash at any moment leaves the old file or the new one. */
  public static native void save(long session, byte[] path) throws IOException;

  /** Checked wholly before anything changes. */
  public static native void load(long session, byte[] path) throws IOException;

  /** What save() would write, to encrypt it, say. No copy of the state is made. */
  public static native void save(long session, Sink sink) throws IOException;

  /** Goes on from what save() wrote. A source that gives something else the second time leaves the session poisoned: load again, or reset it. */
  public static native void load(long session, long size, Source source) throws IOException;

  /** Deletes a saved memory, and what a save that was killed may have left of it. */
  public static native void delete(byte[] path) throws IOException;

  /** The same as save(), as a copy. */
  public static native byte[] snapshot(long session);

  public static native void restore(long session, byte[] snapshot);

  // Called by allmem_jni.cpp with the name of a status and what allmem_last_error() says.
  private static Throwable failure(byte[] status, byte[] sentence) {
    final String name = new String(status, StandardCharsets.UTF_8);
    final String text = new String(sentence, StandardCharsets.UTF_8);
    switch (name) {
      case "ALLMEM_INVALID_ARGUMENT":
        return new IllegalArgumentException(text);
      case "ALLMEM_NOT_FOUND":
        return new FileNotFoundException(text);
      case "ALLMEM_IO":
        return new IOException(text);
      case "ALLMEM_IN_USE":
        return new IllegalStateException(text);
      case "ALLMEM_OUT_OF_MEMORY":
        return new OutOfMemoryError(text);
      default:
        return new AllMemException(name, text);
    }
  }
}
