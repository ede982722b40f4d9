// A small pool of threads. Work is cut into numbered pieces; which thread runs a piece never changes a result.
#pragma once

#include <cstddef>

namespace ramet {

// How many threads run pieces, the caller's included.
int thread_count();
void set_thread_count(int count);

// Calls piece(context, i) for every i in [0, pieces), on several threads if `cost` (about 1 per fused multiply-add on
// one float32, or 4 bytes read from memory) says that it is worth waking them. Returns when all are done. The pieces
// must be independent. From within a piece, or while another caller's work is running, everything runs on the calling
// thread.
void run_pieces(std::ptrdiff_t pieces, double cost, void (*piece)(void*, std::ptrdiff_t), void* context);

template <class Body>
inline void parallel_for(std::ptrdiff_t pieces, double cost, Body&& body) {
  struct Call {
    static void piece(void* context, std::ptrdiff_t i) { (*static_cast<decltype(&body)>(context))(i); }
  };
  run_pieces(pieces, cost, &Call::piece, &body);
}

// Scratch memory of the calling thread, 64-byte aligned, kept between calls. Each slot is one buffer: asking again for
// the same slot gives it away. Slot 0 belongs to the op's caller, slot 1 to its pieces.
float* scratch(int slot, std::size_t floats);

}  // namespace ramet
