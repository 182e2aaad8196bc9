// Snapshots: a head of fixed size, then the caller's note, the layout of the state, the decoding (sampler,
// last logits, unfinished text) and the state without its zeros; all under one checksum.
#include "runtime/snapshot.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "platform/error.h"
#include "platform/printable.h"
#include "runtime/packed_state.h"
#include "runtime/state_values.h"

namespace allmem {

namespace {

constexpr std::array<char, 8> kMagic = {'A', 'L', 'L', 'M', 'E', 'M', 'S', 'S'};
constexpr uint32_t kFormat = 5;
constexpr uint32_t kWholeState = 3;   // the oldest format that is read: it has the state as it lies in memory
constexpr uint32_t kFloatMemory = 4;  // the newest in which all memories are float32
constexpr uint32_t kFrozen = 1, kExact = 2, kUnfinished = 4;
// Sections that cannot be larger in an honest file.
constexpr std::string_view kChosen = "chosen: ";  // in front of what is in the layout, but no state
constexpr size_t kMaxLayout = size_t{1} << 24, kMaxDecoding = size_t{1} << 28;
constexpr size_t kBlock = size_t{1} << 18;  // of a state in passing; whole words of the hash
constexpr uint64_t kMaxState = uint64_t{1} << 60;
constexpr size_t kPiece = size_t{1} << 20;  // of what a callback is given

// All fields lie without gaps.
struct Head {
  std::array<char, 8> magic;
  uint32_t format;
  uint32_t flags;
  uint64_t fingerprint;  // of the model
  uint64_t position;
  uint64_t note_bytes;
  uint64_t layout_bytes;
  uint64_t decoding_bytes;
  uint64_t state_bytes;  // as they are in the snapshot
  uint64_t checksum;     // of everything else, with this field as 0
};
static_assert(sizeof(Head) == 72 && std::is_trivially_copyable_v<Head>);

// All of a snapshot but its state, in pieces, in the order in which they follow each other.
struct Snapshot {
  Head head;
  std::span<const std::byte> note, layout, decoding;
};

// FNV-1a over words of 8 bytes, the last one filled up with zeros. Every step is a bijection of the hash, so
// a change within one word never goes unnoticed.
uint64_t add_to_hash(uint64_t value, std::span<const std::byte> bytes) {
  constexpr uint64_t kPrime = 0x00000100000001B3;
  for (size_t i = 0; i < bytes.size(); i += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, std::min(sizeof word, bytes.size() - i));
    value = std::rotl((value ^ word) * kPrime, 31);
  }
  return value;
}

uint64_t hash(std::span<const std::byte> bytes, uint64_t seed) {
  return add_to_hash(seed ^ bytes.size(), bytes);
}

// Each piece continues the hash of the one before.
uint64_t checksum_before_state(const Snapshot& snapshot) {
  Head head = snapshot.head;
  head.checksum = 0;
  uint64_t value = hash(std::as_bytes(std::span(&head, 1)), 0xCBF29CE484222325);
  for (const auto& piece : {snapshot.note, snapshot.layout, snapshot.decoding}) value = hash(piece, value);
  return value;
}

bool is_wrong([[maybe_unused]] const Head& head, [[maybe_unused]] uint64_t checksum) {
#ifndef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION  // a fuzzer would not get past it
  return head.checksum != checksum;
#else
  return false;
#endif
}

void check_checksum(const Head& head, uint64_t checksum) {
  if (is_wrong(head, checksum)) refuse_snapshot("its checksum is wrong, so it is damaged");
}

// Refuses a head that cannot be right, before anything is read or allocated by what it says.
void check_head(const Head& head, uint64_t total) {
  if (head.magic != kMagic) refuse_snapshot("it is not a snapshot of allmem-edge");
  if (head.format < kWholeState || head.format > kFormat) {
    refuse_snapshot("it has the format " + std::to_string(head.format) +
                    ", but this version of allmem-edge reads formats " + std::to_string(kWholeState) +
                    " to " + std::to_string(kFormat) + (head.format > kFormat ? "; update allmem-edge" : ""));
  }
  const bool plausible =
      head.note_bytes <= kMaxNote && head.layout_bytes <= kMaxLayout && head.decoding_bytes <= kMaxDecoding;
  const uint64_t before_state = sizeof head + head.note_bytes + head.layout_bytes + head.decoding_bytes;
  if (!plausible || before_state > total || head.state_bytes != total - before_state) {
    refuse_snapshot("its length is not what its header says; it may have been cut short");
  }
  if (head.flags > (kFrozen | kExact | kUnfinished)) {
    refuse_snapshot("its header has a flag that this version of allmem-edge does not know");
  }
}

// Cuts `bytes`, a head and what follows it, into the pieces that the head names.
Snapshot cut(const Head& head, std::span<const std::byte> bytes) {
  size_t place = sizeof head;
  const auto piece = [&](uint64_t size) {
    const auto taken = bytes.subspan(place, static_cast<size_t>(size));
    place += size;
    return taken;
  };
  Snapshot snapshot{.head = head, .note = {}, .layout = {}, .decoding = {}};
  snapshot.note = piece(head.note_bytes);
  snapshot.layout = piece(head.layout_bytes);
  snapshot.decoding = piece(head.decoding_bytes);
  return snapshot;
}

Head read_head(std::span<const std::byte> bytes, uint64_t total) {
  if (bytes.size() < sizeof(Head)) {
    refuse_snapshot("it has only " + std::to_string(bytes.size()) + " bytes, too few for a snapshot");
  }
  Head head;
  std::memcpy(&head, bytes.data(), sizeof head);
  check_head(head, total);
  return head;
}

// All of a snapshot but its state.
struct Front {
  WipedVector<std::byte> bytes;
  Snapshot snapshot;  // views them
};

Front read_front(const SnapshotSource& source) {
  Front front;
  front.bytes.resize(static_cast<size_t>(std::min<uint64_t>(source.size, sizeof(Head))));
  source.read(0, front.bytes);
  const Head head = read_head(front.bytes, source.size);
  front.bytes.resize(
      static_cast<size_t>(sizeof head + head.note_bytes + head.layout_bytes + head.decoding_bytes));
  source.read(sizeof head, std::span(front.bytes).subspan(sizeof head));
  front.snapshot = cut(head, front.bytes);
  return front;
}

// Calls use(block) for all of the state as it is in the snapshot, in blocks: it may be larger than the memory
// of who asks. Returns the checksum.
template <class Use>
uint64_t each_block(const Front& front, const SnapshotSource& source, const Use& use) {
  uint64_t value = checksum_before_state(front.snapshot) ^ front.snapshot.head.state_bytes;
  WipedVector<std::byte> room(
      static_cast<size_t>(std::min<uint64_t>(front.snapshot.head.state_bytes, kBlock)));
  for (uint64_t offset = front.bytes.size(); offset < source.size; offset += room.size()) {
    const auto block =
        std::span(room).first(static_cast<size_t>(std::min<uint64_t>(source.size - offset, room.size())));
    source.read(offset, block);
    value = add_to_hash(value, block);
    use(std::span<const std::byte>(block));
  }
  return value;
}

// `state_bytes`: what the state takes in memory.
void check_content(const Front& front, const SnapshotSource& source, uint64_t state_bytes) {
  const Head& head = front.snapshot.head;
  if (head.format == kWholeState) {
    if (head.state_bytes != state_bytes) refuse_snapshot("its state is not as long as the parts of it");
    check_checksum(head, each_block(front, source, [](auto) {}));
    return;
  }
  PackedReader reader(state_bytes);
  const uint64_t value = each_block(front, source, [&](auto block) { reader.take(block); });
  reader.finish();
  check_checksum(head, value);
}

// Fills all of `state`, which has the size that check_content() was given.
void take_state_as_it_is(const Front& front, const SnapshotSource& source, std::span<std::byte> state) {
  uint64_t value = 0;
  bool changed = false;
  try {
    if (front.snapshot.head.format == kWholeState) {
      source.read(front.bytes.size(), state);
      value = hash(state, checksum_before_state(front.snapshot));
    } else {
      PackedReader reader(state);
      value = each_block(front, source, [&](auto block) { reader.take(block); });
      reader.finish();
    }
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kBadSnapshot) throw;
    changed = true;
  }
  if (changed || is_wrong(front.snapshot.head, value)) {
    throw Error(ErrorCode::kIo,
                "This memory changed while it was loaded; load it again, or reset the session.");
  }
}

bool is_older(const SnapshotInfo& info, const Model& model) {
  return info.format <= kFloatMemory && has_older_form(model.program());
}

// Fills all of a session's state. `older`: as large as the state was, if it is older.
void take_state(const Front& front, const SnapshotSource& source, const Model& model,
                std::span<std::byte> older, std::span<std::byte> state) {
  if (older.empty()) return take_state_as_it_is(front, source, state);
  take_state_as_it_is(front, source, older);
  take_older_state(model.program(), older, state);
}

SnapshotSource source_of(std::span<const std::byte> bytes) {
  return {.size = bytes.size(), .read = [bytes](uint64_t offset, std::span<std::byte> into) {
            std::ranges::copy(bytes.subspan(static_cast<size_t>(offset), into.size()), into.begin());
          }};
}

// Which bytes of the state are what: for every state its name, its form and its bytes, in their order; then
// the bytes that operators keep for themselves, and what was chosen when the model was loaded, if anything.
// Two sessions with equal layouts understand each other's state. `older`: as it was in kFloatMemory.
WipedVector<std::byte> layout_of(const Model& model, bool older) {
  const Program& program = model.program();
  ByteWriter layout;
  size_t end = 0;
  for (const State& state : program.states) {
    layout.text(state.name);
    const bool was_float = older && state.form == StateForm::kDifference;
    layout.number(static_cast<uint8_t>(was_float ? StateForm::kFloat32 : state.form));
    layout.number(uint64_t{was_float ? older_bytes(state) : state.bytes});
    end = align_up(state.offset + state.bytes);
  }
  layout.text("");
  layout.number(uint8_t{1});
  layout.number(uint64_t{program.state_bytes - end});
  if (const std::string& chosen = model.info().chosen; !chosen.empty()) {
    layout.text(std::string(kChosen) + chosen);
    layout.number(uint8_t{0});
    layout.number(uint64_t{0});
  }
  return layout.bytes();
}

// Adds to `info` the states, all their bytes, and what was chosen.
void read_layout(std::span<const std::byte> bytes, SnapshotInfo& info) {
  const auto most =
      static_cast<uint8_t>(info.format <= kFloatMemory ? StateForm::kOwn : StateForm::kDifference);
  ByteReader layout(bytes);
  while (!layout.at_end()) {
    const WipedString name = layout.text(kMaxLayout);
    if (layout.number<uint8_t>() > most) refuse_snapshot("a part of its state has an unknown form");
    const auto size = layout.number<uint64_t>();
    if (size > kMaxState - info.state_bytes) refuse_snapshot("a part of its state is larger than any");
    info.state_bytes += (size + kPackedBlock - 1) / kPackedBlock * kPackedBlock;
    if (name.starts_with(kChosen)) {
      info.chosen = printable(std::string_view(name).substr(kChosen.size()));
    } else if (!name.empty()) {
      info.states.push_back({printable(name), {}, static_cast<size_t>(size)});
    }
  }
}

}  // namespace

uint64_t fingerprint(const Model& model) {
  // Some KiB of every weight: any training changes them all, and a phone need not read the whole file.
  constexpr size_t kSample = 512, kSamples = 8;
  uint64_t value = 0;
  const auto add = [&value](const void* data, size_t bytes) {
    value = hash({static_cast<const std::byte*>(data), bytes}, value);
  };
  for (const onnx::ValueInfo& input : model.program().source->inputs) {  // not the states of this choice
    if (!input.name.ends_with(".state")) continue;
    const std::string name = printable(input.name);
    add(name.data(), name.size());
    std::vector<int64_t> shape;
    for (const onnx::Dimension& dim : input.shape) shape.push_back(std::max<int64_t>(dim.value, 1));
    add(shape.data(), shape.size() * sizeof(int64_t));
  }
  for (const onnx::Tensor& tensor : model.program().source->initializers) {
    add(tensor.name.data(), tensor.name.size());
    const uint64_t counted = tensor.data.size();  // 64 bits on every machine
    add(&counted, sizeof counted);
    const size_t bytes = tensor.data.size();
    if (bytes <= kSample * kSamples) {
      add(tensor.data.data(), bytes);
    } else {
      for (size_t i = 0; i < kSamples; ++i)
        add(tensor.data.data() + (bytes - kSample) / (kSamples - 1) * i, kSample);
    }
  }
  // Models that have the same weights and states may differ in the rule that their memory follows.
  for (const onnx::Node& node : model.program().source->nodes) {
    if (node.domain != "allmem" || node.op_type != "LinearMemory") continue;
    for (const onnx::Attribute& attribute : node.attributes)
      if (attribute.name == "delta") add(&attribute.i, sizeof attribute.i);
  }
  return value;
}

namespace {

// `decoding` and `layout` are what the snapshot's pieces view.
Snapshot describe(const Writer& writer, std::string_view note, const ByteWriter& decoding,
                  const WipedVector<std::byte>& layout, const PackedState& state) {
  if (note.size() > kMaxNote) {
    throw Error(ErrorCode::kInvalidArgument, "The note of a snapshot has at most " +
                                                 std::to_string(kMaxNote) + " bytes, not " +
                                                 std::to_string(note.size()) + ".");
  }
  if (decoding.bytes().size() > kMaxDecoding) {
    throw Error(ErrorCode::kInvalidArgument,
                "The unfinished text is too long to be saved: its prompt and options take " +
                    std::to_string(decoding.bytes().size()) + " bytes.");
  }
  const Session& session = writer.session();
  Snapshot snapshot{
      .head = {.magic = kMagic,
               .format = kFormat,
               .flags = (session.frozen() ? kFrozen : 0) | (session.model().info().exact ? kExact : 0) |
                        (writer.unfinished() ? kUnfinished : 0),
               .fingerprint = fingerprint(session.model()),
               .position = session.position(),
               .note_bytes = note.size(),
               .layout_bytes = layout.size(),
               .decoding_bytes = decoding.bytes().size(),
               .state_bytes = state.bytes(),
               .checksum = 0},
      .note = std::as_bytes(std::span(note)),
      .layout = layout,
      .decoding = decoding.bytes()};
  uint64_t value = checksum_before_state(snapshot) ^ state.bytes();
  state.each_piece([&](std::span<const std::byte> piece) { value = add_to_hash(value, piece); });
  snapshot.head.checksum = value;
  return snapshot;
}

}  // namespace

uint64_t save_snapshot_to(const Writer& writer, std::string_view note,
                          FunctionRef<void(std::span<const std::byte>)> write) {
  ByteWriter decoding;
  writer.save(decoding);
  const WipedVector<std::byte> layout = layout_of(writer.session().model(), /*older=*/false);
  const PackedState state(writer.session().state_memory());
  const Snapshot snapshot = describe(writer, note, decoding, layout, state);
  const auto in_pieces = [&](std::span<const std::byte> bytes) {
    for (; !bytes.empty(); bytes = bytes.subspan(std::min(bytes.size(), kPiece)))
      write(bytes.first(std::min(bytes.size(), kPiece)));
  };
  in_pieces(std::as_bytes(std::span(&snapshot.head, 1)));
  for (const auto& section : {snapshot.note, snapshot.layout, snapshot.decoding}) in_pieces(section);
  state.each_piece(in_pieces);
  return snapshot.head.checksum;
}

namespace {

SnapshotInfo info_of(const Snapshot& snapshot) {
  const Head& head = snapshot.head;
  SnapshotInfo info{
      .format = head.format,
      .position = head.position,
      .frozen = (head.flags & kFrozen) != 0,
      .exact = (head.flags & kExact) != 0,
      .unfinished = (head.flags & kUnfinished) != 0,
      .fingerprint = head.fingerprint,
      .state_bytes = 0,
      .states = {},
      .chosen = {},
      .note = std::string(reinterpret_cast<const char*>(snapshot.note.data()), snapshot.note.size()),
      .checksum = head.checksum};
  read_layout(snapshot.layout, info);
  return info;
}

// Bytes of the state of a snapshot that `session` can load.
size_t wanted_bytes(const SnapshotInfo& info, const Session& session) {
  return is_older(info, session.model()) ? older_state_bytes(session.model().program())
                                         : session.state_bytes();
}

// Refuses the snapshot of a session whose state cannot be this one's.
void check_model(const SnapshotInfo& info, std::span<const std::byte> layout, const Session& session) {
  if (info.fingerprint != fingerprint(session.model()))
    refuse_snapshot(
        "it belongs to another model, or the model's files are damaged (compare them with their checksums)");
  if (std::ranges::equal(layout, layout_of(session.model(), is_older(info, session.model()))) &&
      info.state_bytes == wanted_bytes(info, session)) {
    if (session.model().info().memory == MemoryUse::kFrozen && !info.frozen)
      refuse_snapshot("its header says that the memory is written, which its other settings rule out");
    return;
  }
  const ModelInfo& model = session.model().info();
  if (info.chosen != model.chosen) {
    const auto described = [](const std::string& chosen) {
      return chosen.empty() ? "the window, sinks, chunk and memory of the model's own file" : chosen;
    };
    refuse_snapshot("it was saved by a session with " + described(info.chosen) +
                    ", but the model is loaded with " + described(model.chosen) +
                    "; load the model with the same choices to go on with it");
  }
  if (info.exact != session.model().info().exact) {
    refuse_snapshot(info.exact
                        ? "it was saved by an exact session, which keeps its state in another form; load "
                          "the model as exact to go on with it"
                        : "it was saved by a fast session, which keeps its state in another form; load "
                          "the model without `exact` to go on with it");
  }
  refuse_snapshot("its state has another layout than this version of allmem-edge uses");
}

}  // namespace

size_t snapshot_size(const Writer& writer, std::string_view note) {
  ByteWriter decoding;
  writer.save(decoding);
  return sizeof(Head) + note.size() + layout_of(writer.session().model(), /*older=*/false).size() +
         decoding.bytes().size() + PackedState(writer.session().state_memory()).bytes();
}

void save_snapshot(const Writer& writer, std::string_view note, std::span<std::byte> buffer) {
  save_snapshot_to(writer, note, [&](std::span<const std::byte> piece) {
    if (piece.size() > buffer.size()) {
      throw Error(ErrorCode::kInvalidArgument, "The buffer is too small for the snapshot.");
    }
    std::ranges::copy(piece, buffer.begin());
    buffer = buffer.subspan(piece.size());
  });
}

SnapshotInfo inspect_snapshot(std::span<const std::byte> bytes) { return inspect_snapshot(source_of(bytes)); }

SnapshotInfo inspect_snapshot(const SnapshotSource& source) {
  const Front front = read_front(source);
  SnapshotInfo info = info_of(front.snapshot);
  check_content(front, source, info.state_bytes);
  return info;
}

uint64_t snapshot_checksum(const SnapshotSource& source) { return read_front(source).snapshot.head.checksum; }

SnapshotInfo load_snapshot(Writer& writer, const std::shared_ptr<const Tokenizer>& tokenizer,
                           std::span<const std::byte> bytes) {
  return load_snapshot(writer, tokenizer, source_of(bytes));
}

SnapshotInfo load_snapshot(Writer& writer, const std::shared_ptr<const Tokenizer>& tokenizer,
                           const SnapshotSource& source, const Accept& accept) {
  const Front front = read_front(source);
  const Snapshot& snapshot = front.snapshot;
  Session& session = writer.session();
  SnapshotInfo info = info_of(snapshot);
  // A state of another size is not read at all: what comes before it says why it cannot be this session's.
  if (info.state_bytes != wanted_bytes(info, session)) check_model(info, snapshot.layout, session);
  check_content(front, source, info.state_bytes);
  check_model(info, snapshot.layout, session);
  if (info.position > Session::kMaxPosition) refuse_snapshot("it counts more tokens than a session can read");
  ByteReader reader(snapshot.decoding);
  Writer::Decoding decoding = writer.read_decoding(reader, tokenizer);
  if (info.unfinished != (decoding.text != nullptr)) {
    refuse_snapshot("its header and its content disagree on whether a text was being written");
  }
  if (accept) accept(info);
  WipedVector<std::byte> older(is_older(info, session.model()) ? static_cast<size_t>(info.state_bytes) : 0);
  writer.restore(info.position, std::move(decoding), [&](std::span<std::byte> state) {
    take_state(front, source, session.model(), older, state);
  });
  session.freeze(info.frozen, /*learn=*/false);
  session.model().say("loaded a memory of " + std::to_string(info.position) + " tokens");
  return info;
}

}  // namespace allmem
