// Which table is chosen, and that ALLMEM_ISA decides it.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <initializer_list>
#include <optional>
#include <set>
#include <sstream>
#include <string>

#include "bounded.h"
#include "platform/cpu_features.h"
#include "platform/error.h"

using namespace allmem;

namespace {

// Sets ALLMEM_ISA for one scope and puts the old value back.
class IsaVariable {
 public:
  explicit IsaVariable(const char* value) {
    if (const char* old = std::getenv("ALLMEM_ISA")) old_ = old;
    set(value);
  }
  ~IsaVariable() { set(old_ ? old_->c_str() : nullptr); }

 private:
  static void set(const char* value) {
#if defined(_WIN32)
    _putenv_s("ALLMEM_ISA", value ? value : "");  // which takes it away
#else
    value ? setenv("ALLMEM_ISA", value, 1) : unsetenv("ALLMEM_ISA");
#endif
  }

  std::optional<std::string> old_;
};

}  // namespace

TEST_CASE("the available tables end with ref and have different names") {
  const auto tables = test::all_kernels();
  REQUIRE(!tables.empty());
  CHECK(tables.back() == &ref_kernels());
  for (size_t i = 0; i < tables.size(); ++i)
    for (size_t j = 0; j < i; ++j) CHECK(std::string(tables[i]->name) != tables[j]->name);
}

TEST_CASE("the tables are the instruction sets that CMake compiles for, each with needs of its own") {
  std::set<std::string> compiled, listed{"ref"};
  std::istringstream words(ALLMEM_ISAS);
  for (std::string isa; words >> isa;) listed.insert(isa);
  std::set<CpuFeatures> needs;
  for (const Kernels* table : compiled_kernels()) {
    compiled.insert(table->name);
    // One that was made from a copy of another and kept its needs would run where it must not.
    if (table->name != std::string("ref")) CHECK_MESSAGE(needs.insert(table->needs).second, table->name);
  }
  CHECK(compiled == listed);
}

TEST_CASE("a table is available if and only if the machine has what it needs, and better ones come first") {
  const CpuFeatures features = detect_cpu_features();
  auto available = available_kernels().begin();
  for (const Kernels* table : compiled_kernels()) {
    if ((features & table->needs) != table->needs) continue;
    REQUIRE(available != available_kernels().end());
    CHECK(*available++ == table);
  }
  CHECK(available == available_kernels().end());
  // Set where the processor is known, that is, emulated.
  if (const char* known = std::getenv("ALLMEM_EXPECTED_ISA")) {
    CHECK(std::string(available_kernels().front()->name) == known);
  }
}

#if defined(__linux__)
TEST_CASE("what is found is what Linux says of the processor") {
  if (std::getenv("ALLMEM_EXPECTED_ISA")) return;  // emulated: Linux tells of the processor underneath
  std::ifstream file("/proc/cpuinfo");
  std::set<std::string> flags;
  for (std::string line; flags.empty() && std::getline(file, line);) {
    if (!line.starts_with("flags") && !line.starts_with("Features")) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    for (std::string flag; words >> flag;) flags.insert(flag);
  }
  REQUIRE(!flags.empty());
  const auto all = [&](std::initializer_list<const char*> names) {
    return std::all_of(names.begin(), names.end(), [&](const char* name) { return flags.contains(name); });
  };
  const CpuFeatures features = detect_cpu_features();
  const auto found = [&](CpuFeatures feature) { return (features & feature) != 0; };
#if defined(__x86_64__)
  const bool avx2 = all({"avx2", "fma", "f16c"});
  const bool avx512vnni = avx2 && all({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"});
  CHECK(found(cpu::kAvx2) == avx2);
  CHECK(found(cpu::kAvxVnni) == (avx2 && all({"avx_vnni"})));
  CHECK(found(cpu::kAvx512Vnni) == avx512vnni);
  // The system may have tiles and yet not grant them.
  CHECK((!found(cpu::kAmx) || (avx512vnni && all({"avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"}))));
#elif defined(__aarch64__)
  CHECK(found(cpu::kDotProduct) == all({"asimddp"}));
  CHECK(found(cpu::kInt8MatrixProduct) == all({"i8mm"}));
#endif
}
#endif

TEST_CASE("without ALLMEM_ISA, or with it empty, the best table is used") {
  for (const char* value : {static_cast<const char*>(nullptr), ""}) {
    const IsaVariable isa(value);
    CHECK(&best_kernels() == test::all_kernels().front());
  }
}

TEST_CASE("ALLMEM_ISA selects each available table by its name") {
  for (const Kernels* table : test::all_kernels()) {
    const IsaVariable isa(table->name);
    CHECK(&best_kernels() == table);
  }
}

TEST_CASE("ALLMEM_ISA=ref computes with the scalar functions and not with any other") {
  const IsaVariable isa("ref");
  CHECK((best_kernels().linear_f32 == ref_kernels().linear_f32));
  CHECK((best_kernels().attention == ref_kernels().attention));
  for (const Kernels* table : test::all_kernels())  // each has this one of its own
    if (table != &ref_kernels()) CHECK((table->linear_q8 != best_kernels().linear_q8));
}

TEST_CASE("an unknown ALLMEM_ISA is refused with a sentence that lists what there is") {
  const IsaVariable isa("mmx");
  try {
    best_kernels();
    FAIL("accepted an unknown instruction set");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kInvalidArgument);
    const std::string message = error.what();
    CHECK(message.find("ALLMEM_ISA") != std::string::npos);
    CHECK(message.find("'mmx'") != std::string::npos);
    for (const Kernels* table : test::all_kernels()) CHECK(message.find(table->name) != std::string::npos);
  }
}
