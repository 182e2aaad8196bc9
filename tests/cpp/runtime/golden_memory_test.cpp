// Memory files of every released format, committed with the model that they belong to: they load, and go on
// with the same tokens. To write what may change anew: ALLMEM_UPDATE_GOLDEN=1 runtime_test -tc="a
// memory file*"
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "runtime/layer_memory.h"
#include "runtime/snapshot.h"

using namespace allmem;

namespace {

const std::string kData = std::string(ALLMEM_TEST_DATA) + "/memory/";

struct Golden {
  const char* name;  // NAME.allmem, and NAME.txt: what comes after it
  uint32_t format;
  Precision precision;
};
constexpr uint32_t kToday = 5;
constexpr Golden kAll[] = {{"format-3-exact", 3, Precision::kExact}, {"format-3-fast", 3, Precision::kFast},
                           {"format-4-exact", 4, Precision::kExact}, {"format-4-fast", 4, Precision::kFast},
                           {"format-5-exact", 5, Precision::kExact}, {"format-5-fast", 5, Precision::kFast}};

Writer new_writer(Precision precision) {
  return Writer(std::make_unique<Session>(Model::load(kData, precision), SessionOptions{.threads = 1}));
}

// The rest of the text and the tokens drawn by hand after it, on a line.
std::string go_on(Writer& writer, const Tokenizer& tokenizer) {
  std::ostringstream out;
  while (const auto piece = writer.next()) out << *piece;
  int32_t id = 7;
  for (int i = 0; i < 24; ++i) {
    writer.read({&id, 1}, LogitsFor::kLast, {});
    id = writer.sample(&tokenizer);
    out << ' ' << id;
  }
  return out.str();
}

// How far a norm of the memory may be from the committed one, relative to it. That has six digits. Kernels
// sum in different orders: each of the 145 tokens may round the memory once more, by 2^-24 of it, always to
// the same side at worst. In 8 bits a number may then get the code beside its own, 1/127 of the largest of
// its 64 away, which is 8 of their root mean squares r at most. If all n do so, with either sign, their norm
// r √n moves by 8/127 / √n + (8/127)² / 2 of it.
double tolerance(Precision precision) {
  constexpr double kPrinted = 5e-6, kTokens = 145, kNumbers = 3 * 32 * 16, kCode = 8.0 / 127;
  const double rounding = kPrinted + kTokens * 0x1p-24;
  return precision == Precision::kExact ? rounding
                                        : rounding + kCode / std::sqrt(kNumbers) + kCode * kCode / 2;
}

// How far the memory is then.
LayerMemory memory_of(const Writer& writer) { return layer_memories(writer.session()).at(0); }

void save(const Golden& golden, const std::shared_ptr<const Tokenizer>& tokenizer) {
  Writer writer = new_writer(golden.precision);
  writer.set_sampling({.temperature = 2.0f, .top_k = 40, .repetition_penalty = 1.3f, .seed = 1});
  std::vector<int32_t> prompt;  // of some windows and chunks, so that everything in the state is in use
  for (int32_t i = 0; i < 75; ++i) prompt.push_back(i * 37 % 50);
  GenerateOptions options;  // not in braces, nested: GCC 12 takes the bias for uninitialised then
  options.sampling = {.temperature = 2.0f, .top_p = 0.95f, .repetition_penalty = 1.5f, .seed = 2};
  options.max_tokens = 46;
  options.stop = {"never there"};
  writer.start(tokenizer, prompt, options);
  for (int i = 0; i < 17; ++i) writer.next();
  save_snapshot_file(writer, "golden", kData + golden.name + ".allmem");
}

void write_what_follows(const Golden& golden, const std::shared_ptr<const Tokenizer>& tokenizer) {
  Writer writer = new_writer(golden.precision);
  load_snapshot_file(writer, tokenizer, kData + golden.name + ".allmem");
  std::ofstream expected(kData + golden.name + ".txt", std::ios::binary);
  expected << go_on(writer, *tokenizer) << '\n';
  const LayerMemory memory = memory_of(writer);
  expected << memory.drift << ' ' << memory.momentum << '\n';
}

// Of today's format all; of the older ones what follows a fast session's file, where the arithmetic of fast
// sessions has changed.
void update(const Golden& golden, const std::shared_ptr<const Tokenizer>& tokenizer) {
  if (golden.format == kToday) save(golden, tokenizer);
  if (golden.format == kToday || golden.precision == Precision::kFast) write_what_follows(golden, tokenizer);
}

}  // namespace

TEST_CASE("a memory file of any released format loads, and goes on with the same tokens") {
  const auto tokenizer = Tokenizer::from_file(kData + "tokenizer.json");
  for (const Golden& golden : kAll) {
    CAPTURE(golden.name);
    if (std::getenv("ALLMEM_UPDATE_GOLDEN") != nullptr) update(golden, tokenizer);
    Writer writer = new_writer(golden.precision);
    const SnapshotInfo info = load_snapshot_file(writer, tokenizer, kData + golden.name + ".allmem");
    CHECK(info.format == golden.format);
    CHECK(info.note == "golden");
    CHECK(info.unfinished);
    CHECK(info.exact == (golden.precision == Precision::kExact));
    std::ifstream file(kData + golden.name + ".txt");
    std::string expected;
    std::getline(file, expected);
    CHECK(go_on(writer, *tokenizer) == expected);
    const LayerMemory memory = memory_of(writer);
    for (const double value : {memory.drift, memory.momentum}) {
      double wanted = 0;
      file >> wanted;
      CHECK(wanted > 0);
      CHECK(std::fabs(value - wanted) < tolerance(golden.precision) * wanted);
    }
  }
}
