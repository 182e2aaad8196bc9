// One session on two machines: `read` here and there, move the snapshots, `continue`, and `compare` the
// logits. cmake/cross_session.cmake runs it natively and under an emulator.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../tiny_model.h"
#include "allmem/allmem.h"

namespace {

constexpr size_t kFirst = 137, kSecond = 200;  // tokens before and after the snapshot, which is in mid-chunk

[[noreturn]] void fail(const std::string& sentence) {
  std::fprintf(stderr, "%s\n", sentence.c_str());
  std::exit(1);
}

void check(int32_t status) {
  if (status != ALLMEM_OK) fail(allmem_last_error());
}

struct Session {
  allmem_model* model = nullptr;
  allmem_session* session = nullptr;
  allmem_model_info info{};

  Session(const char* path, bool exact) {
    allmem_model_options options;
    allmem_model_options_init(&options);
    options.exact = exact;
    check(allmem_model_load(path, &options, &model));
    allmem_session_options threads;
    allmem_session_options_init(&threads);
    threads.threads = 1;
    check(allmem_session_create(model, &threads, &session));
    info.struct_size = sizeof info;
    check(allmem_model_get_info(model, &info));
  }
  ~Session() {
    allmem_session_free(session);
    allmem_model_free(model);
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // The same on every platform: minstd is defined by the standard, distributions are not.
  std::vector<int32_t> tokens() const {
    std::minstd_rand random(5);
    std::vector<int32_t> ids(kFirst + kSecond);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint32_t>(info.vocab_size));
    return ids;
  }

  // Reads token by token; appends the logits after each.
  void read(const int32_t* ids, size_t count, std::vector<float>& logits) {
    std::vector<float> row(static_cast<size_t>(info.vocab_size));
    size_t written = 0;
    for (size_t i = 0; i < count; ++i) {
      check(allmem_session_prefill(session, ids + i, 1, nullptr));
      check(allmem_session_logits(session, row.data(), row.size(), &written));
      logits.insert(logits.end(), row.begin(), row.end());
    }
  }
};

void write(const char* path, const std::vector<float>& values) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(float)));
  if (!file) fail(std::string("cannot write ") + path);
}

std::vector<float> load(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (bytes.empty() || bytes.size() % sizeof(float) != 0) fail(std::string("cannot read ") + path);
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

double worst(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) fail("the files hold different numbers of logits");
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::fabs(double{a[i]} - double{b[i]});
    if (!(difference <= most)) most = difference;  // also when it is NaN
  }
  return most;
}

// Two float32 runs that sum in different orders: each is off by a rounding of the largest value, 2⁻²⁴ of it,
// in each of about 20 operators a layer that follow one another.
double tolerance(const std::vector<float>& logits, int layers) {
  float most = 0;
  for (const float value : logits) most = std::max(most, std::fabs(value));
  return 2 * 20 * std::max(layers, 1) * double{most} * 0x1p-24;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "";
  std::vector<float> logits;
  if ((command == "read" || command == "continue") && argc == 6) {
    Session session(argv[2], std::string(argv[3]) == "exact");
    const std::vector<int32_t> ids = session.tokens();
    if (command == "read") {
      check(allmem_session_prefill(session.session, ids.data(), kFirst, nullptr));
      check(allmem_session_save_file(session.session, nullptr, 0, argv[4]));
    } else {
      check(allmem_session_load_file(session.session, argv[4]));
    }
    session.read(ids.data() + kFirst, kSecond, logits);
    write(argv[5], logits);
    return 0;
  }
  if (command == "model" && argc == 3) {
    const allmem::test::TinyConfig config{.vocab = 50,
                                          .width = 64,
                                          .heads = 2,
                                          .kv_heads = 1,
                                          .dim = 32,
                                          .window = 9,
                                          .sinks = 2,
                                          .hidden = 16,
                                          .chunk = 6,
                                          .bits = 4};
    std::ofstream(argv[2], std::ios::binary) << allmem::test::TinyModel(config).builder().build();
    return 0;
  }
  if (command == "compare" &&
      argc >= 5) {  // compare MODEL A B [C]: A and B differ by rounding, or by less than A and C
    const Session session(argv[2], true);
    const std::vector<float> a = load(argv[3]), b = load(argv[4]);
    const double found = worst(a, b);
    const double allowed =
        std::max(tolerance(a, session.info.layers), argc > 5 ? worst(a, load(argv[5])) : 0);
    std::printf("%s and %s: %zu logits, largest difference %.3g, allowed %.3g\n", argv[3], argv[4], a.size(),
                found, allowed);
    return found <= allowed ? 0 : 1;
  }
  std::fprintf(stderr,
               "usage: cross_session model FILE\n"
               "       cross_session read|continue MODEL exact|fast SNAPSHOT LOGITS\n"
               "       cross_session compare MODEL A B [C]\n");
  return 2;
}
