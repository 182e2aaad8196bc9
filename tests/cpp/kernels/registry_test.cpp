// Which table is chosen, and that ALLMEM_ISA decides it.
#include <cstdlib>
#include <optional>
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

TEST_CASE("available_kernels respects the capacity") {
  const Kernels* one = nullptr;
  CHECK(available_kernels(&one, 1) == 1);
  CHECK(one == test::all_kernels().front());
  CHECK(available_kernels(nullptr, 0) == 0);
}

TEST_CASE("the first table is the best that the machine can run") {
  const CpuFeatures features = detect_cpu_features();
#if defined(__aarch64__)
  const char* best = features.dotprod ? features.i8mm ? "i8mm" : "dotprod" : "neon";
#else
  const char* best = features.amx ? "amx"
                     : features.avx512vnni ? "avx512vnni"
                     : features.avxvnni ? "avxvnni"
                     : features.avx2 ? "avx2"
                                     : "ref";
#endif
  CHECK(std::string(test::all_kernels().front()->name) == best);
  // Set where the processor is known, that is, emulated.
  if (const char* known = std::getenv("ALLMEM_EXPECTED_ISA")) CHECK(std::string(best) == known);
}

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
  for (const Kernels* table : test::all_kernels())
    if (table != &ref_kernels()) CHECK((table->linear_f32 != best_kernels().linear_f32));
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
