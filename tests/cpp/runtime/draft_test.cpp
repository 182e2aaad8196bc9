// What is drafted: what followed the same tokens before, where that is likely to come again.
#include "runtime/draft.h"

#include <doctest/doctest.h>

#include "graph/op.h"
#include "session_checks.h"

using namespace allmem;
using namespace allmem::test;

namespace {

using Ids = std::vector<int32_t>;

// What is drafted after `next`, 7 tokens at most.
Ids drafted(NgramDrafts& drafts, int32_t next) {
  Ids room(kMostSpeculative - 1);
  room.resize(drafts.draft(next, room));
  return room;
}

}  // namespace

TEST_CASE("a draft is what followed the last three tokens when they came before") {
  NgramDrafts drafts;
  CHECK(drafted(drafts, 1).empty());
  drafts.read(Ids{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 0});
  CHECK(drafted(drafts, 1).empty());
  drafts.read(Ids{1, 2});
  CHECK(drafted(drafts, 9).empty());
  CHECK(drafted(drafts, 3) == Ids{4});  // more is not yet worth a try
  drafts.read(Ids{3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
  const Ids right = drafted(drafts, 13);
  CHECK(right.size() >= 3);
  for (size_t i = 0; i < right.size(); ++i) CHECK(right[i] == static_cast<int32_t>(14 + i));
  CHECK(drafted(drafts, 20).empty());
  CHECK(drafted(drafts, 13) == right);  // to ask changes nothing
  NgramDrafts copy = drafts;
  drafts.forget();
  CHECK(drafted(drafts, 13).empty());
  CHECK(drafted(copy, 13) == right);
}

TEST_CASE("drafts go on with a text that repeats what it is writing") {
  NgramDrafts drafts;
  for (int i = 0; i < 20; ++i) drafts.read(Ids{1, 2});
  CHECK(drafted(drafts, 1) == Ids{2, 1, 2, 1, 2, 1, 2});
  drafts.read(Ids{7, 7, 7, 7, 7, 7, 7, 7, 7, 7});
  CHECK(drafted(drafts, 7) == Ids{7, 7, 7, 7, 7, 7, 7});
}

TEST_CASE("a text of chance is not drafted for long, and one that repeats is again, however much was read") {
  NgramDrafts drafts;
  const auto chance = random_ids(60'000, 4, 3);  // the same three tokens all the time, and then any of four
  size_t count = 0, late = 0;
  for (size_t i = 0; i < chance.size(); ++i) {
    const size_t here = drafted(drafts, chance[i]).size();
    count += here;
    if (i > 1000) late += here;
    drafts.read({&chance[i], 1});
  }
  CHECK(count > 0);
  CHECK(late < chance.size() / 10);
  const auto page = random_ids(500, 1000, 4);
  size_t right = 0;
  drafts.read(page);
  for (size_t i = 0; i + 1 < page.size(); ++i) {
    const Ids draft = drafted(drafts, page[i]);
    right += !draft.empty() && draft[0] == page[i + 1];
    drafts.read({&page[i], 1});
  }
  CHECK(right > 450);
}
