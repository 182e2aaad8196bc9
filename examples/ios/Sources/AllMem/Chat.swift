// A conversation for Swift, whose answers are streams of text.
import CAllMem
import Foundation

/// A conversation that remembers. Its calls run one after another on a queue of its own, so that an answer is over before the
/// next one, or a save, begins.
///
/// An answer never waits for whoever reads its stream: one that shows word by word may save in its loop, and ask again; and
/// when it is cancelled, the chat may have said more than was shown.
public final class Chat: @unchecked Sendable {
  private let model: Model
  private let session: OpaquePointer
  private let system: String?
  private let undoBytes: UInt64
  private let queue = DispatchQueue(label: "org.allmem.chat", qos: .userInitiated)
  private let stops = Locked(0)
  private let current = Locked<Answer?>(nil)
  private var unread: Set<String> = []  // memories that could not be loaded, and are not to be overwritten; of the queue

  /// threads: 0 takes the fast cores; fewer save battery. undoBytes: memory for `undo()`; a turn takes about
  /// `Model.stateBytes`, and the newest is kept whatever it takes. 0 keeps none.
  public init(_ model: Model, system: String? = nil, threads: Int32 = 2, undoBytes: UInt64 = 0) throws {
    var options = allmem_session_options()
    allmem_session_options_init_sized(&options, MemoryLayout<allmem_session_options>.size)
    options.threads = threads
    var created: OpaquePointer?
    try check(allmem_session_create(model.handle, &options, &created))
    session = created!
    self.model = model
    self.system = system
    self.undoBytes = undoBytes
  }

  deinit { allmem_session_free(session) }

  /// How the answer goes that runs, or went that was the last. Nil before the first and after an error.
  public var answer: Answer? { current.value }

  /// The answer, piece by piece; it begins at once. A task that is cancelled, or leaves its loop, ends it: also while a long
  /// message is still being read, within one block of tokens. The chat then goes on from what it has read and said.
  ///
  /// progress: called on the chat's queue, before each piece and between the blocks of a long message.
  public func send(
    _ text: String, sampling: Sampling? = nil, progress: (@Sendable (Answer) -> Void)? = nil
  ) -> AsyncThrowingStream<String, Error> {
    stream(progress) { run in
      var turns = ["user", text]
      if let system = self.system, try self.position() == 0 { turns = ["system", system] + turns }
      if self.undoBytes > 0 { try check(allmem_session_mark(self.session, self.undoBytes)) }
      do {
        try self.write(turns, sampling ?? self.model.sampling, run)
      } catch {
        if self.undoBytes > 0 { allmem_session_undo(self.session) }  // no turn was taken
        throw error
      }
    }
  }

  /// Goes on with an answer that was cut short, as if it had never been. ALLMEM_INVALID_ARGUMENT when there is none: also when
  /// it was stopped before anything of a long message was read (`isUnfinished()`); send that again.
  public func resume(progress: (@Sendable (Answer) -> Void)? = nil) -> AsyncThrowingStream<String, Error> {
    stream(progress) { run in
      try run.finished(allmem_session_resume(self.session, onPiece, run.userData, run.generation))
    }
  }

  /// Ends the answers that were asked for until now; their streams finish with what was said so far. For a stop button: it
  /// does nothing when nothing runs.
  public func stop() {
    stops.change { $0 += 1 }
    allmem_session_cancel(session)
  }

  /// Takes the last turn back, message and answer. ALLMEM_INVALID_ARGUMENT when none is kept.
  public func undo() async throws { try await alone { try check(allmem_session_undo($0)) } }

  /// An answer was cut short, and `resume()` can go on with it.
  public func isUnfinished() async throws -> Bool { try await alone { _ in try self.info().unfinished != 0 } }

  /// Saves what the chat remembers; a crash at any moment leaves the old file or the new one. A file that `load(from:)`
  /// refused is not overwritten: move it away, or delete it. Nor is one that somebody else has saved to since
  /// (ALLMEM_CONFLICT).
  public func save(to file: URL) async throws {
    try await alone { session in
      let path = file.standardizedFileURL.path
      if self.unread.contains(path), FileManager.default.fileExists(atPath: path) {
        throw AllMemError(
          status: "ALLMEM_IO",
          description: "\(path) could not be loaded, and saving would overwrite it. Move it away, or delete it.")
      }
      try check(allmem_session_save_file(session, nil, 0, path))
    }
  }

  /// Goes on from a saved memory. Status ALLMEM_NOT_FOUND when there is none, ALLMEM_BAD_SNAPSHOT when it is damaged or
  /// another model's. Do not ignore it with `try?`: the next save would write a memory that knows nothing.
  public func load(from file: URL) async throws {
    try await alone { session in
      let path = file.standardizedFileURL.path
      let status = allmem_session_load_file(session, path)
      if status != Int32(ALLMEM_OK), status != Int32(ALLMEM_NOT_FOUND) { self.unread.insert(path) }
      try check(status)
      self.unread.remove(path)
    }
  }

  /// What `save(to:)` would write, in pieces of at most 1 MiB, to encrypt them, say. No copy of the state is made.
  public func save(_ write: @escaping @Sendable (UnsafeRawBufferPointer) throws -> Void) async throws {
    try await alone { session in
      let sink = Sink(write)
      let status = allmem_session_save_to(session, nil, 0, onWrite, Unmanaged.passUnretained(sink).toOpaque())
      if let error = sink.error { throw error }
      try check(status)
    }
  }

  /// What `save(to:)` would write, as a copy.
  public func snapshot() async throws -> Data {
    try await alone { session in
      var size = 0
      let status = allmem_session_save(session, nil, 0, nil, 0, &size)
      if status != Int32(ALLMEM_BUFFER_TOO_SMALL) { try check(status) }
      var bytes = Data(count: size)
      try bytes.withUnsafeMutableBytes { try check(allmem_session_save(session, nil, 0, $0.baseAddress, $0.count, &size)) }
      return bytes.prefix(size)
    }
  }

  /// Forgets a saved memory: also what a save that was killed may have left beside it.
  public static func delete(memory file: URL) throws { try check(allmem_snapshot_delete_file(file.path)) }

  public func restore(_ snapshot: Data) async throws {
    try await alone { session in
      try snapshot.withUnsafeBytes { try check(allmem_session_load(session, $0.baseAddress, $0.count)) }
    }
  }

  /// Frozen, the chat reads its long-term memory but learns nothing new. A long text that somebody pastes is read without
  /// forgetting what was told before: freeze, send it, freeze(false).
  public func freeze(_ frozen: Bool = true) async throws {
    try await alone { try check(allmem_session_freeze($0, frozen ? 1 : 0)) }
  }

  /// Forgets everything.
  public func reset() async throws { try await alone { try check(allmem_session_reset($0)) } }

  /// Forgets everything, and overwrites it.
  public func wipe() async throws { try await alone { try check(allmem_session_wipe($0)) } }

  // --- on the queue

  private func alone<T>(_ body: @escaping @Sendable (OpaquePointer) throws -> T) async throws -> T {
    try await withCheckedThrowingContinuation { (done: CheckedContinuation<T, Error>) in
      queue.async { done.resume(with: Result { try body(self.session) }) }
    }
  }

  private func stream(
    _ progress: (@Sendable (Answer) -> Void)?, _ write: @escaping @Sendable (Run) throws -> Void
  ) -> AsyncThrowingStream<String, Error> {
    let before = stops.value
    return AsyncThrowingStream { continuation in
      let run = Run(continuation) { answer in
        self.current.change { $0 = answer }
        progress?(answer)
        return self.stops.value == before
      }
      continuation.onTermination = { _ in run.leave() }
      queue.async {
        do {
          self.current.change { $0 = Answer() }
          if self.stops.value == before { try write(run) } else { run.generation.pointee.finish = Finish.cancelled.rawValue }
          self.current.change { $0 = run.answer(ended: true) }
          continuation.finish()
        } catch {
          self.current.change { $0 = nil }
          continuation.finish(throwing: error)
        }
      }
    }
  }

  private func write(_ turns: [String], _ sampling: Sampling, _ run: Run) throws {
    var options = allmem_sampling()
    allmem_sampling_init_sized(&options, MemoryLayout<allmem_sampling>.size)
    options.temperature = sampling.temperature
    options.top_k = sampling.topK
    options.top_p = sampling.topP
    options.min_p = sampling.minP
    options.repetition_penalty = sampling.repetitionPenalty
    options.repetition_window = sampling.repetitionWindow
    options.max_tokens = sampling.maxTokens
    options.seed = sampling.seed
    try withCStrings(turns) { texts in
      let messages = stride(from: 0, to: texts.count, by: 2).map {
        allmem_message(role: texts[$0], content: texts[$0 + 1])
      }
      try withCStrings(sampling.stop) { stop in
        try stop.withUnsafeBufferPointer { stop in
          options.stop = stop.baseAddress
          options.stop_count = stop.count
          try run.finished(
            allmem_session_chat(session, messages, messages.count, &options, onPiece, run.userData, run.generation))
        }
      }
    }
  }

  private func info() throws -> allmem_session_info {
    var info = allmem_session_info()
    info.struct_size = MemoryLayout<allmem_session_info>.size
    try check(allmem_session_get_info(session, &info))
    return info
  }

  private func position() throws -> UInt64 { try info().position }
}

/// A running answer: where its text and its figures go, and whether somebody still wants it.
private final class Run: @unchecked Sendable {
  let generation = UnsafeMutablePointer<allmem_generation>.allocate(capacity: 1)  // the library writes, the callback reads
  private let continuation: AsyncThrowingStream<String, Error>.Continuation
  private let goesOn: @Sendable (Answer) -> Bool
  private let left = Locked(false)

  init(_ continuation: AsyncThrowingStream<String, Error>.Continuation, goesOn: @escaping @Sendable (Answer) -> Bool) {
    self.continuation = continuation
    self.goesOn = goesOn
    generation.initialize(to: allmem_generation())
    generation.pointee.struct_size = MemoryLayout<allmem_generation>.size
  }

  deinit { generation.deallocate() }

  /// For the callback, while somebody else holds this object.
  var userData: UnsafeMutableRawPointer { Unmanaged.passUnretained(self).toOpaque() }

  /// From any thread, at any time: also before the answer has begun.
  func leave() { left.change { $0 = true } }

  /// Called with whole characters, and with nothing between the blocks of tokens of a long message.
  func take(_ utf8: UnsafeRawBufferPointer) -> Bool {
    if !utf8.isEmpty { continuation.yield(String(decoding: utf8, as: UTF8.self)) }
    return goesOn(answer(ended: false)) && !left.value
  }

  func answer(ended: Bool) -> Answer {
    let figures = generation.pointee
    return Answer(
      promptTokens: figures.prompt_tokens, promptLeft: UInt64(figures.prompt_left),
      generatedTokens: figures.generated_tokens, finish: ended ? Finish(rawValue: figures.finish) ?? .other : nil,
      prefillSeconds: figures.prefill_seconds, decodeSeconds: figures.decode_seconds)
  }

  /// Reading that was cancelled is an answer, too.
  func finished(_ status: Int32) throws {
    if status != Int32(ALLMEM_CANCELLED) { try check(status) }
  }
}

private let onPiece: allmem_text_callback = { text, size, userData in
  let run = Unmanaged<Run>.fromOpaque(userData!).takeUnretainedValue()
  return run.take(UnsafeRawBufferPointer(start: text, count: size)) ? 0 : 1
}

/// Where a snapshot goes, and what went wrong there.
private final class Sink {
  let write: @Sendable (UnsafeRawBufferPointer) throws -> Void
  var error: Error?

  init(_ write: @escaping @Sendable (UnsafeRawBufferPointer) throws -> Void) { self.write = write }
}

private let onWrite: allmem_write_callback = { bytes, size, userData in
  let sink = Unmanaged<Sink>.fromOpaque(userData!).takeUnretainedValue()
  do {
    try sink.write(UnsafeRawBufferPointer(start: bytes, count: size))
    return 0
  } catch {
    sink.error = error
    return 1
  }
}

/// The texts as C strings that live until `body` returns.
private func withCStrings<T>(_ texts: [String], _ body: ([UnsafePointer<CChar>?]) throws -> T) throws -> T {
  for text in texts where text.utf8.contains(0) {
    throw AllMemError(status: "ALLMEM_INVALID_ARGUMENT", description: "The text has a NUL character.")
  }
  let copies = texts.map { strdup($0)! }
  defer { copies.forEach { free($0) } }
  return try body(copies.map { UnsafePointer($0) })
}

/// A value for any thread.
private final class Locked<Value>: @unchecked Sendable {
  private let lock = NSLock()
  private var held: Value

  init(_ value: Value) { held = value }

  var value: Value {
    lock.lock()
    defer { lock.unlock() }
    return held
  }

  func change(_ body: (inout Value) -> Void) {
    lock.lock()
    defer { lock.unlock() }
    body(&held)
  }
}
