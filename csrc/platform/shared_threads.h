// The threads of a process, which all its sessions share: a session takes as many as it wants for one block
// of tokens, and gives them back.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "platform/thread_pool.h"

namespace allmem {

class SharedThreads {
 private:
  struct Team {
    std::unique_ptr<ThreadPool> pool;
    bool busy = false;
  };

 public:
  // Those of this process: there while anybody holds them. Nothing else of the library belongs to the
  // process.
  static std::shared_ptr<SharedThreads> of_process();

  // At most `most` threads work at once for all who share them, or as many as one wants who wants more.
  explicit SharedThreads(int most) : most_(most) {}
  SharedThreads(const SharedThreads&) = delete;
  SharedThreads& operator=(const SharedThreads&) = delete;

  // A pool for one caller, until this is gone.
  class Lease {
   public:
    Lease(SharedThreads& from, Team& team) : from_(from), team_(team) {}
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ThreadPool& pool() const { return *team_.pool; }

   private:
    SharedThreads& from_;
    Team& team_;
  };

  // Waits until `threads` of them are free, in the order of arrival. Throws std::system_error when the system
  // has no more threads.
  Lease lease(int threads);

 private:
  Team* find_idle(int threads);
  size_t working() const;
  Team* take(int threads);

  const int most_;
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t next_ = 0, serving_ = 0;  // numbers of those who wait
  std::vector<std::unique_ptr<Team>> teams_;
};

}  // namespace allmem
