#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace bidtrie {

/// Threads that run the same job side by side. A waiting thread spins for a few microseconds, since the next
/// phase or step usually comes at once, and then sleeps: an idle team uses no CPU.
class ThreadTeam {
 public:
  /// `threads` includes the caller of `run`.
  explicit ThreadTeam(int threads);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int size() const { return size_; }

  /// Call job(thread) for every thread 0 … size - 1, the caller being 0; returns when all have returned.
  /// The job must not throw. One run at a time.
  template <class Job>
  void run(Job& job) {
    start([](void* context, int thread) noexcept { (*static_cast<Job*>(context))(thread); }, &job);
  }

  /// Inside a job: wait until every thread is here.
  void barrier();

 private:
  using Function = void (*)(void*, int) noexcept;

  void start(Function function, void* context);
  void work(int thread);
  void stop();

  const int size_;
  Function function_ = nullptr;
  void* context_ = nullptr;
  bool stopping_ = false;
  alignas(64) std::atomic<std::uint32_t> started_{0};
  alignas(64) std::atomic<std::uint32_t> generation_{0};
  alignas(64) std::atomic<std::int32_t> arrived_{0};
  std::vector<std::thread> workers_;
};

}  // namespace bidtrie
