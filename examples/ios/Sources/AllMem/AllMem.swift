// AllMem for Swift: a model, and what goes into an answer and comes out with it. Chat.swift has the conversation.
import CAllMem
import Foundation

/// A failure of the library, with its sentence for people.
public struct AllMemError: Error, CustomStringConvertible {
  /// "ALLMEM_NOT_FOUND", "ALLMEM_BAD_SNAPSHOT", ...
  public let status: String
  public let description: String
}

/// Throws what the last call of this thread said.
func check(_ status: Int32) throws {
  guard status != Int32(ALLMEM_OK) else { return }
  throw AllMemError(
    status: String(cString: allmem_status_name(status)), description: String(cString: allmem_last_error()))
}

/// How an answer is drawn; `Model.sampling` is what the model asks for. A temperature of 0 always takes the most likely token.
/// An answer ends before the first of the texts in `stop`, wherever tokens break.
public struct Sampling: Sendable {
  public var temperature: Float = 0.7
  public var topK: Int32 = 0
  public var topP: Float = 1
  public var minP: Float = 0
  public var repetitionPenalty: Float = 1
  public var repetitionWindow: Int32 = 64
  public var maxTokens: Int64 = 512
  public var seed = UInt64.random(in: 0...UInt64.max)
  public var stop: [String] = []
  public init() {}
}

/// Why an answer ended. other: for a reason that only a newer library knows.
public enum Finish: Int32, Sendable {
  case other = 0
  case stopToken, stopText, maxTokens, cancelled
}

/// How an answer goes, or how it went once `finish` is there. Tokens of the message that were read and that are still to be
/// read, for a progress bar, and of the answer.
public struct Answer: Sendable {
  public var promptTokens: UInt64 = 0
  public var promptLeft: UInt64 = 0
  public var generatedTokens: UInt64 = 0
  public var finish: Finish?
  public var prefillSeconds = 0.0
  public var decodeSeconds = 0.0
}

/// What a model does with its memory. frozen: read as training left it, never written, with less state. off: only the window
/// is there.
public enum Memory: Int32, Sendable {
  case on = 0
  case frozen, off
}

/// A model: immutable, shared by any number of chats and threads.
public final class Model: @unchecked Sendable {
  let handle: OpaquePointer

  /// From a directory, such as a folder in the app's bundle. Its files are mapped, not copied. window: tokens that are seen
  /// word for word, 0 as many as the model was trained with; fewer, but no fewer than the model's chunk, take less
  /// memory. What was saved belongs to the same window and memory. check: read all files and compare them with the SHA256SUMS beside them, once after a download.
  public init(directory: URL, window: Int32 = 0, memory: Memory = .on, check all: Bool = false) throws {
    var options = allmem_model_options()
    allmem_model_options_init_sized(&options, MemoryLayout<allmem_model_options>.size)
    options.window = window
    options.memory = memory.rawValue
    if all { options.check = Int32(ALLMEM_CHECK_ALL.rawValue) }
    var model: OpaquePointer?
    try check(allmem_model_load(directory.path, &options, &model))
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
    allmem_sampling_init_sized(&own, MemoryLayout<allmem_sampling>.size)
    allmem_model_get_sampling(handle, &own)
    var sampling = Sampling()
    sampling.temperature = own.temperature
    sampling.topK = own.top_k
    sampling.topP = own.top_p
    sampling.minP = own.min_p
    sampling.repetitionPenalty = own.repetition_penalty
    sampling.repetitionWindow = own.repetition_window
    return sampling
  }

  /// How many tokens the model reads for this text.
  public func countTokens(_ text: String) throws -> Int {
    let utf8 = Array(text.utf8CString)  // with a NUL, which is not counted in
    var count = 0
    let status = allmem_tokenize(handle, utf8, utf8.count - 1, 0, nil, 0, &count)
    if status != Int32(ALLMEM_BUFFER_TOO_SMALL) { try check(status) }
    return count
  }
}
