// AllMem for Swift: a model, and chats whose answers are streams of text.
import CAllMem
import Foundation

/// A failure of the library, with its sentence for people.
public struct AllMemError: Error, CustomStringConvertible {
  /// "ALLMEM_NOT_FOUND", "ALLMEM_BAD_SNAPSHOT", ...
  public let status: String
  public let description: String
}

/// Throws what the last call of this thread said.
private func check(_ status: Int32) throws {
  guard status != Int32(ALLMEM_OK) else { return }
  throw AllMemError(
    status: String(cString: allmem_status_name(status)), description: String(cString: allmem_last_error()))
}

/// How an answer is drawn; `Model.sampling` is what the model asks for. A temperature of 0 always takes the most likely token.
public struct Sampling: Sendable {
  public var temperature: Float = 0.7
  public var topK: Int32 = 0
  public var topP: Float = 1
  public var minP: Float = 0
  public var repetitionPenalty: Float = 1
  public var maxTokens: Int64 = 512
  public var seed = UInt64.random(in: 0...UInt64.max)
  public init() {}
}

/// A model: immutable, shared by any number of chats and threads.
public final class Model: @unchecked Sendable {
  fileprivate let handle: OpaquePointer

  /// From a directory, such as a folder in the app's bundle. Its files are mapped, not copied.
  public init(directory: URL) throws {
    var model: OpaquePointer?
    try check(allmem_model_load(directory.path, nil, &model))
    handle = model!
  }

  deinit { allmem_model_free(handle) }

  /// Bytes that one chat remembers in, however long it gets.
  public var stateBytes: UInt64 {
    var info = allmem_model_info()
    info.struct_size = MemoryLayout<allmem_model_info>.size
    allmem_model_get_info(handle, &info)
    return info.state_bytes
  }

  /// How the model is best drawn from, with a new seed each time.
  public var sampling: Sampling {
    var own = allmem_sampling()
    allmem_sampling_init(&own)
    allmem_model_get_sampling(handle, &own)
    var sampling = Sampling()
    sampling.temperature = own.temperature
    sampling.topK = own.top_k
    sampling.topP = own.top_p
    sampling.minP = own.min_p
    sampling.repetitionPenalty = own.repetition_penalty
    return sampling
  }
}

/// A conversation that remembers. Its calls run one after another on a queue of its own.
public final class Chat: @unchecked Sendable {
  private let model: Model
  private let session: OpaquePointer
  private let system: String?
  private let queue = DispatchQueue(label: "org.allmem.chat", qos: .userInitiated)

  /// threads: 0 takes the fast cores; fewer save battery.
  public init(_ model: Model, system: String? = nil, threads: Int32 = 2) throws {
    var options = allmem_session_options()
    allmem_session_options_init(&options)
    options.threads = threads
    var created: OpaquePointer?
    try check(allmem_session_create(model.handle, &options, &created))
    session = created!
    self.model = model
    self.system = system
  }

  deinit { allmem_session_free(session) }

  /// The answer, piece by piece. A task that is cancelled, or leaves its loop, ends it: also while a long message
  /// is still being read, within one block of tokens. The chat then goes on from what it has read and said.
  public func send(_ text: String, sampling: Sampling? = nil) -> AsyncThrowingStream<String, Error> {
    AsyncThrowingStream { continuation in
      let answer = Answer(continuation)
      continuation.onTermination = { _ in answer.stop() }
      queue.async {
        do {
          try self.generate(text, sampling ?? self.model.sampling, answer)
          continuation.finish()
        } catch {
          continuation.finish(throwing: error)
        }
      }
    }
  }

  /// Ends a running answer; its stream finishes with what was said so far. For a stop button.
  public func stop() { allmem_session_cancel(session) }

  /// Saves what the chat remembers; a crash at any moment leaves the old file or the new one.
  public func save(to file: URL) async throws {
    try await alone { try check(allmem_session_save_file($0, nil, 0, file.path)) }
  }

  /// Goes on from a saved memory. Status ALLMEM_NOT_FOUND when there is none.
  public func load(from file: URL) async throws {
    try await alone { try check(allmem_session_load_file($0, file.path)) }
  }

  /// Frozen, the chat reads its long-term memory but learns nothing new.
  public func freeze(_ frozen: Bool = true) async throws {
    try await alone { try check(allmem_session_freeze($0, frozen ? 1 : 0)) }
  }

  /// Forgets everything.
  public func reset() async throws { try await alone { try check(allmem_session_reset($0)) } }

  /// Forgets everything, and overwrites it.
  public func wipe() async throws { try await alone { try check(allmem_session_wipe($0)) } }

  private func alone(_ body: @escaping (OpaquePointer) throws -> Void) async throws {
    try await withCheckedThrowingContinuation { (done: CheckedContinuation<Void, Error>) in
      queue.async { done.resume(with: Result { try body(self.session) }) }
    }
  }

  private func generate(_ text: String, _ sampling: Sampling, _ answer: Answer) throws {
    var info = allmem_session_info()
    info.struct_size = MemoryLayout<allmem_session_info>.size
    try check(allmem_session_get_info(session, &info))
    var turns = [("user", text)]
    if let system, info.position == 0 { turns.insert(("system", system), at: 0) }
    for (_, content) in turns where content.utf8.contains(0) {
      throw AllMemError(status: "ALLMEM_INVALID_ARGUMENT", description: "The text has a NUL character.")
    }
    let copies = turns.map { (strdup($0.0)!, strdup($0.1)!) }
    defer { for (role, content) in copies { free(role); free(content) } }
    let messages = copies.map { allmem_message(role: $0.0, content: $0.1) }

    var options = allmem_sampling()
    allmem_sampling_init(&options)
    options.temperature = sampling.temperature
    options.top_k = sampling.topK
    options.top_p = sampling.topP
    options.min_p = sampling.minP
    options.repetition_penalty = sampling.repetitionPenalty
    options.max_tokens = sampling.maxTokens
    options.seed = sampling.seed

    let status = allmem_session_chat(
      session, messages, messages.count, &options,
      { text, size, userData in
        let answer = Unmanaged<Answer>.fromOpaque(userData!).takeUnretainedValue()
        return answer.goOn(UnsafeRawBufferPointer(start: text, count: size)) ? 0 : 1
      }, Unmanaged.passUnretained(answer).toOpaque(), nil)
    if status != Int32(ALLMEM_CANCELLED) { try check(status) }
  }
}

/// A running answer: where its text goes, and whether somebody still wants it.
private final class Answer: @unchecked Sendable {
  private let continuation: AsyncThrowingStream<String, Error>.Continuation
  private let lock = NSLock()
  private var wanted = true

  init(_ continuation: AsyncThrowingStream<String, Error>.Continuation) { self.continuation = continuation }

  /// From any thread, at any time: also before the answer has begun.
  func stop() {
    lock.lock()
    defer { lock.unlock() }
    wanted = false
  }

  /// Called with whole characters, and with nothing between the blocks of tokens of a long message.
  func goOn(_ utf8: UnsafeRawBufferPointer) -> Bool {
    if !utf8.isEmpty { continuation.yield(String(decoding: utf8, as: UTF8.self)) }
    lock.lock()
    defer { lock.unlock() }
    return wanted
  }
}
