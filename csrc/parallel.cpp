#include "parallel.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace ramet {
namespace {

// Below this cost (some tens of microseconds, if all is in the cache) waking a thread costs more than it saves.
constexpr double kWorthWaking = 500e3;
// How long an idle thread looks for the next op before it sleeps: an op of a model follows the last within
// microseconds.
constexpr std::chrono::microseconds kLookout(30);

struct Job {
  void (*piece)(void*, std::ptrdiff_t);
  void* context;
  std::ptrdiff_t pieces;
  std::ptrdiff_t grain;
  std::atomic<std::ptrdiff_t> next{0};

  void work() {
    for (;;) {
      const std::ptrdiff_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= pieces) return;
      const std::ptrdiff_t end = begin + grain < pieces ? begin + grain : pieces;
      for (std::ptrdiff_t i = begin; i < end; ++i) piece(context, i);
    }
  }
};

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

class Pool {
 public:
  explicit Pool(int count) {
    for (int i = 1; i < count; ++i) threads_.emplace_back([this] { serve(); });
  }
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
      generation_.fetch_add(1);
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  int count() const { return static_cast<int>(threads_.size()) + 1; }

  void run(Job& job) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      generation_.fetch_add(1);
    }
    wake_.notify_all();
    job.work();
    // Threads that have not taken the job by now find none; those inside a piece are waited for.
    std::unique_lock<std::mutex> lock(mutex_);
    job_ = nullptr;
    if (inside_ == 0) return;
    lock.unlock();
    const auto until = std::chrono::steady_clock::now() + kLookout;
    while (inside_.load() != 0 && std::chrono::steady_clock::now() < until) relax();
    lock.lock();
    left_.wait(lock, [this] { return inside_ == 0; });
  }

 private:
  void serve() {
    std::uint64_t seen = 0;
    for (;;) {
      const auto until = std::chrono::steady_clock::now() + kLookout;
      while (generation_.load() == seen && std::chrono::steady_clock::now() < until) relax();
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return generation_ != seen; });
      seen = generation_;
      if (stopping_) return;
      Job* const job = job_;
      if (job == nullptr) continue;
      inside_.fetch_add(1);
      lock.unlock();
      job->work();
      lock.lock();
      if (inside_.fetch_sub(1) == 1) left_.notify_one();
    }
  }

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_, left_;
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<int> inside_{0};
  Job* job_ = nullptr;
  bool stopping_ = false;
};

std::mutex owner;  // held while a caller uses, or changes, the pool
std::unique_ptr<Pool> pool;
std::atomic<int> wanted{0};
thread_local bool in_piece = false;

int all_cores() {
  const unsigned cores = std::thread::hardware_concurrency();
  return cores == 0 ? 1 : static_cast<int>(cores);
}

struct Free {
  void operator()(float* p) const { std::free(p); }
};

}  // namespace

int thread_count() {
  const int count = wanted.load();
  return count == 0 ? all_cores() : count;
}

void set_thread_count(int count) {
  std::lock_guard<std::mutex> lock(owner);
  wanted = count;
  pool.reset();
}

void run_pieces(std::ptrdiff_t pieces, double cost, void (*piece)(void*, std::ptrdiff_t), void* context) {
  if (pieces > 1 && cost >= kWorthWaking && !in_piece && thread_count() > 1) {
    std::unique_lock<std::mutex> lock(owner, std::try_to_lock);
    if (lock.owns_lock()) {
      if (!pool) pool = std::make_unique<Pool>(thread_count());
      Job job;
      job.piece = piece;
      job.context = context;
      job.pieces = pieces;
      const std::ptrdiff_t shares = 8 * static_cast<std::ptrdiff_t>(pool->count());
      job.grain = pieces > shares ? pieces / shares : 1;
      in_piece = true;
      pool->run(job);
      in_piece = false;
      return;
    }
  }
  for (std::ptrdiff_t i = 0; i < pieces; ++i) piece(context, i);
}

float* scratch(int slot, std::size_t floats) {
  struct Buffer {
    std::unique_ptr<float, Free> memory;
    std::size_t size = 0;
  };
  thread_local Buffer buffers[2];
  Buffer& buffer = buffers[slot];
  if (buffer.size < floats) {
    const std::size_t bytes = (floats * sizeof(float) + 63) / 64 * 64;
    buffer.memory.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
    buffer.size = buffer.memory ? floats : 0;
    if (!buffer.memory) throw std::bad_alloc();
  }
  return buffer.memory.get();
}

}  // namespace ramet
