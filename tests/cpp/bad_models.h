// Models that are damaged or mean harm, made by hand. One table for the C++ loader and for the C API.
#pragma once

#include <utility>
#include <vector>

#include "bad_graphs.h"
#include "bad_operators.h"

namespace allmem::test {

inline std::vector<BadModel> bad_models() {
  BadModels models;
  models.add_graphs();
  models.add_operators();
  return std::move(models.all);
}

}  // namespace allmem::test
