// The layout of what crosses the border: a change here breaks programs that are already compiled.
#include <doctest/doctest.h>

#include <cstddef>

#include "allmem/allmem.h"

extern "C" int header_compiles_as_c99(void);
extern "C" int header_compiles_as_c11(void);

// On every 64-bit platform that we build for.
static_assert(sizeof(void*) != 8 || sizeof(allmem_model_options) == 32);
static_assert(sizeof(void*) != 8 || sizeof(allmem_file) == 40);
static_assert(sizeof(void*) != 8 || offsetof(allmem_file, offset) == 32);
static_assert(sizeof(void*) != 8 || sizeof(allmem_model_info) == 80);
static_assert(sizeof(void*) != 8 || offsetof(allmem_model_info, weight_bytes) == 40);
static_assert(sizeof(void*) != 8 || offsetof(allmem_model_info, quantization) == 64);
static_assert(sizeof(void*) != 8 || sizeof(allmem_message) == 16);
static_assert(sizeof(void*) != 8 || sizeof(allmem_session_options) == 16);
static_assert(sizeof(void*) != 8 || sizeof(allmem_sampling) == 64);
static_assert(sizeof(void*) != 8 || offsetof(allmem_sampling, seed) == 32);
static_assert(sizeof(void*) != 8 || sizeof(allmem_generation) == 48);
static_assert(sizeof(void*) != 8 || sizeof(allmem_session_info) == 40);
static_assert(sizeof(void*) != 8 || sizeof(allmem_snapshot_info) == 40);
static_assert(ALLMEM_OK == 0 && ALLMEM_INTERNAL == 13 && ALLMEM_ABI_VERSION == 1);

TEST_CASE("the header is C99, C11 and C++") {
  CHECK(header_compiles_as_c99() == 1);
  CHECK(header_compiles_as_c11() == 1);
}
