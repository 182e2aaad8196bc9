// Teams of threads: one that is idle is used again by whoever wants as many; others are ended to make room.
#include "platform/shared_threads.h"

#include <algorithm>

#include "platform/fast_cores.h"

namespace allmem {

std::shared_ptr<SharedThreads> SharedThreads::of_process() {
  static std::mutex& mutex = *new std::mutex;  // never destroyed: a thread may come while the process ends
  static std::weak_ptr<SharedThreads>& known = *new std::weak_ptr<SharedThreads>;
  const std::scoped_lock lock(mutex);
  std::shared_ptr<SharedThreads> threads = known.lock();
  if (!threads) {
    threads = std::make_shared<SharedThreads>(fast_cores());
    known = threads;
  }
  return threads;
}

SharedThreads::Team* SharedThreads::find_idle(int threads) {
  for (const auto& team : teams_) {
    if (!team->busy && team->pool->threads() == threads) return team.get();
  }
  return nullptr;
}

size_t SharedThreads::working() const {
  size_t count = 0;
  for (const auto& team : teams_) count += team->busy ? static_cast<size_t>(team->pool->threads()) : 0;
  return count;
}

// Null when the caller has to wait.
SharedThreads::Team* SharedThreads::take(int threads) {
  const size_t busy = working();
  if (busy > 0 && busy + static_cast<size_t>(threads) > static_cast<size_t>(most_)) return nullptr;
  Team* team = find_idle(threads);
  if (team == nullptr) {
    size_t idle = 0;
    for (const auto& each : teams_) idle += each->busy ? 0 : static_cast<size_t>(each->pool->threads());
    if (busy + idle + static_cast<size_t>(threads) > static_cast<size_t>(most_)) {
      std::erase_if(teams_, [](const auto& each) { return !each->busy; });
    }
    auto made = std::make_unique<Team>(Team{.pool = std::make_unique<ThreadPool>(threads)});
    team = teams_.emplace_back(std::move(made)).get();
  }
  team->busy = true;
  return team;
}

SharedThreads::Lease SharedThreads::lease(int threads) {
  std::unique_lock lock(mutex_);
  const uint64_t number = next_++;
  changed_.wait(lock, [&] { return serving_ == number; });
  Team* team = nullptr;
  try {
    while ((team = take(threads)) == nullptr) changed_.wait(lock);
  } catch (...) {
    ++serving_;
    changed_.notify_all();
    throw;
  }
  ++serving_;
  changed_.notify_all();
  return Lease(*this, *team);
}

SharedThreads::Lease::~Lease() {
  const std::scoped_lock lock(from_.mutex_);
  team_.busy = false;
  from_.changed_.notify_all();
}

}  // namespace allmem
