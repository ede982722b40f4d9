// Multi-head latent attention in its absorbed form: queries in latent space meet rows (latent | shared rope key), one
// per token for all heads. A token that sees more than `top_k` rows attends to its chosen ones only, in order of
// position; the others are never touched. Blocks of rows are pages, or each 64 of the chosen, so that they depend on the
// token alone.
#include "../parallel.h"
#include "shared_rows.h"

namespace ramet::RAMET_ISA {
namespace {

constexpr Index kTokens = 4;  // that read a page together

template <class Row>
void copy_row(const Row* from, Index size, float* to) {
  over_columns(size, [&](Index c, int lanes) { store_lanes(to + c, load_lanes(from + c, lanes), lanes); });
}

// The rows of a page as float32, [count][size]: where they lie, or copied to `room`.
template <class Row>
const float* page_rows(const Row* page, Index size, Index count, float* room) {
  if constexpr (std::is_same_v<Row, float>) return page;
  copy_row(page, count * size, room);
  return room;
}

// `tokens` rows of session s from its row `begin` of this step on, and `heads` heads from `head` on.
template <class Row>
void tile(const LatentAttention& a, Index s, Index begin, Index tokens, Index head, Index heads) {
  const Index size = a.latent_size + a.rope_size;
  const Index row = a.spans.offsets[s] + begin, position = a.spans.positions[s] + begin;
  void* const* const pages = a.spans.pages + a.spans.first_page[s];
  const auto page = [&](Index p) { return static_cast<const Row*>(pages[p]) + a.offset; };

  const Index each = SharedRowsToken::floats(size, a.latent_size);
  float* const memory = scratch(1, static_cast<std::size_t>(tokens * each + kBlock * size + (kBlock + 1) * kHeads));
  float* const room = memory + tokens * each;
  float* const scores = room + kBlock * size;
  const auto token = [&](Index t) { return SharedRowsToken(memory + t * each, size, a.latent_size); };
  const auto start = [&](Index t) {
    token(t).clear();
    float* const to = token(t).q;
    for (Index h = 0; h < heads; ++h) {
      const float* const q = a.q + (row + t) * a.q_stride + (head + h) * a.latent_size;
      const float* const q_rope = a.q_rope + (row + t) * a.q_rope_stride + (head + h) * a.q_rope_slot;
      for (Index c = 0; c < a.latent_size; ++c) to[c * kHeads + h] = q[c];
      for (Index c = 0; c < a.rope_size; ++c) to[(a.latent_size + c) * kHeads + h] = q_rope[c];
    }
  };
  const auto attend = [&](Index t, const float* rows, Index count, auto meanwhile) {
    attend_shared_rows(token(t), heads, rows, size, a.latent_size, count, a.scale, scores, meanwhile);
  };
  const auto finish = [&](Index t) {
    const SharedRowsToken done = token(t);
    for (Index h = 0; h < heads; ++h) {
      const Vec total = all(done.total[h]);
      const float* const result = done.result + h * a.latent_size;
      float* const out = a.out + ((row + t) * a.heads + head + h) * a.latent_size;
      over_columns(a.latent_size, [&](Index c, int lanes) {
        store_lanes(out + c, load_lanes(result + c, lanes) / total, lanes);
      });
    }
  };

  // Tokens that see every row before them go through the pages together, each as far as it sees and no further: what
  // lies beyond may belong to another branch, or be no number at all.
  Index whole = tokens;
  if (a.chosen != nullptr && position + tokens > a.top_k) whole = a.top_k > position ? a.top_k - position : 0;
  for (Index t = 0; t < tokens; ++t) start(t);
  for (Index before = 0; whole > 0 && before < position + whole; before += kPageTokens) {
    const auto seen = [&](Index t) {
      const Index count = position + t + 1 - before;
      return count < kPageTokens ? count : kPageTokens;
    };
    const float* const rows = page_rows(page(before / kPageTokens), size, seen(whole - 1), room);
    for (Index t = 0; t < whole; ++t)
      if (seen(t) > 0) attend(t, rows, seen(t), [](Index, Index) {});
  }

  // Chosen rows lie anywhere, and the longer the context, the longer the way to them: it is hidden behind the
  // arithmetic. A block's rows are fetched one block ahead, some at a time; two blocks ahead their ends alone, all at
  // once, so that the processor looks up their addresses side by side and not each before its row.
  const Index each_blocks = (a.top_k + kBlock - 1) / kBlock;
  const Index blocks = whole < tokens ? (tokens - whole) * each_blocks : 0;  // the tokens' one after the other
  struct Chosen {
    const Row* rows[kBlock];
    Index count = 0;
  };
  const auto find = [&](Index b) {
    Chosen found;
    if (b >= blocks) return found;
    const Index first = b % each_blocks * kBlock;
    const std::int32_t* const chosen = a.chosen + (row + whole + b / each_blocks) * a.top_k + first;
    found.count = a.top_k - first < kBlock ? a.top_k - first : kBlock;
    for (Index i = 0; i < found.count; ++i) {
      found.rows[i] = page(chosen[i] / kPageTokens) + chosen[i] % kPageTokens * size;
      __builtin_prefetch(found.rows[i]);
      __builtin_prefetch(found.rows[i] + size - 1);
    }
    return found;
  };
  Chosen here = find(0), next = find(1);
  for (Index b = 0; b < blocks; ++b) {
    for (Index i = 0; i < here.count; ++i) copy_row(here.rows[i], size, room + i * size);
    const Chosen later = find(b + 2);
    Index fetched = 0;
    attend(whole + b / each_blocks, room, here.count, [&](Index done, Index of) {
      for (; fetched < next.count * done / of; ++fetched)
        for (Index c = 0; c < size; c += 64 / Index{sizeof(Row)}) __builtin_prefetch(next.rows[fetched] + c);
    });
    here = next;
    next = later;
  }
  for (Index t = 0; t < tokens; ++t) finish(t);
}

template <class Row>
void write_rows(const LatentAttention& a) {
  const Index size = a.latent_size + a.rope_size;
  for (Index s = 0; s < a.spans.count; ++s)
    for (Index row = a.spans.offsets[s]; row < a.spans.offsets[s + 1]; ++row) {
      const Index position = a.spans.positions[s] + row - a.spans.offsets[s];
      Row* const to = static_cast<Row*>(a.spans.pages[a.spans.first_page[s] + position / kPageTokens]) + a.offset +
                      position % kPageTokens * size;
      const float* const latent = a.latent + row * a.latent_stride;
      const float* const rope_key = a.rope_key + row * a.rope_key_stride;
      for (Index c = 0; c < a.latent_size; ++c) put(to[c], latent[c]);
      for (Index c = 0; c < a.rope_size; ++c) put(to[a.latent_size + c], rope_key[c]);
    }
}

template <class Row>
void attend(const LatentAttention& a) {
  write_rows<Row>(a);
  const Index groups = (a.heads + kHeads - 1) / kHeads;
  // Pieces: (session, tile of tokens, group of heads), numbered over each session's tiles.
  Index pieces = 0;
  double work = 0;
  for (Index s = 0; s < a.spans.count; ++s) {
    const Index length = a.spans.offsets[s + 1] - a.spans.offsets[s], end = a.spans.positions[s] + length;
    const Index seen = a.chosen != nullptr && a.top_k < end ? a.top_k : end;
    pieces += (length + kTokens - 1) / kTokens * groups;
    work += static_cast<double>(length * seen) * static_cast<double>(a.heads * (2 * a.latent_size + a.rope_size));
  }
  parallel_for(pieces, work / 8, [&](Index piece) {
    Index s = 0;
    for (;; ++s) {
      const Index here = (a.spans.offsets[s + 1] - a.spans.offsets[s] + kTokens - 1) / kTokens * groups;
      if (piece < here) break;
      piece -= here;
    }
    const Index begin = piece / groups * kTokens, length = a.spans.offsets[s + 1] - a.spans.offsets[s];
    const Index head = piece % groups * kHeads;
    tile<Row>(a, s, begin, length - begin < kTokens ? length - begin : kTokens, head,
              a.heads - head < kHeads ? a.heads - head : kHeads);
  });
}

}  // namespace

void latent_attention(const LatentAttention& a) { a.spans.half ? attend<std::uint16_t>(a) : attend<float>(a); }

}  // namespace ramet::RAMET_ISA
