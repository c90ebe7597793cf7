// Products of bfloat16 matrices on Intel's AMX units, each with its last step, and GPT-2's attention.
//
// Compiled on the machine it runs on and called by `amx.py`; equal to `linear.DenseLinear` and
// `attention.SdpaAttention`, but for more digits kept: what a product adds up stays in float32 until
// its last step is done.
//
// A tile holds 16 rows of 64 bytes. Four tiles add up a block of 32 rows by 32 columns, two hold rows
// of the inputs and two columns of the weight. The last step is vector work: a block has it while the
// tiles multiply the next one.
//
// Shapes: N rows, I inputs (a multiple of 32), O outputs (in panels of 32), T keys, S queries,
// K width of a head (a multiple of 16).

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>

namespace {

using bf16 = std::uint16_t;

constexpr long SIDE = 32;              // of a block, and inputs of one tile product
constexpr long TILE = 16 * 32;         // numbers of a tile
constexpr long CACHED_BYTES = 786432;  // of weights that stay in a core's own cache, of 2 MiB
constexpr long PARTS_A_THREAD = 4;     // at least, so that none waits long for the others
constexpr long LEAST_ROWS = 128;       // worth fetching weights for
constexpr float LOG2_E = 1.4426950408889634f;

inline long divide_up(long number, long by) { return (number + by - 1) / by; }
inline long round_up(long number, long to) { return divide_up(number, to) * to; }

/// What was written to memory is there for the tiles. GCC's headers do not tell it that tiles read
/// memory; without this it may move such writes behind the loads. No instruction.
inline void before_tiles() { asm volatile("" ::: "memory"); }

/// Tiles of 16 rows by 64 bytes while it lives. oneDNN leaves none behind and sets its own.
class Tiles {
 public:
  Tiles() {
    alignas(64) std::uint8_t wanted[64] = {1};
    for (int tile = 0; tile < 8; ++tile) {
      wanted[16 + 2 * tile] = 64;
      wanted[48 + tile] = 16;
    }
    before_tiles();
    _tile_loadconfig(wanted);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

/// Memory that begins with a cache line, as tiles want it.
template <class T>
class Buffer {
 public:
  explicit Buffer(long size)
      : memory_(static_cast<T*>(std::aligned_alloc(64, round_up(size * sizeof(T) + 1, 64))),
                std::free) {
    if (!memory_) throw std::bad_alloc();
  }
  T* data() { return memory_.get(); }
  T& operator[](long at) { return memory_.get()[at]; }

 private:
  std::unique_ptr<T, decltype(&std::free)> memory_;
};

/// 2^x within 2e-7 of itself: a polynomial of the fraction (the least largest relative error with
/// five terms and 2^0 = 1), scaled by the whole part.
inline __m512 exp2(__m512 x) {
  const __m512 fraction = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF);
  __m512 y = _mm512_set1_ps(0.00186713017f);
  y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(0.00901702978f));
  y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(0.0557999127f));
  y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(0.240164444f));
  y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(0.693151295f));
  y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(y, x);
}

/// GPT-2's GELU, the tanh form: x / (1 + exp(-2 sqrt(2/pi) (x + 0.044715 x^3))).
inline __m512 gelu(__m512 x) {
  const __m512 scale = _mm512_set1_ps(-2 * 0.7978845608f * LOG2_E);
  const __m512 cubic = _mm512_set1_ps(-2 * 0.7978845608f * LOG2_E * 0.044715f);
  const __m512 exponent = _mm512_mul_ps(x, _mm512_fmadd_ps(_mm512_mul_ps(x, x), cubic, scale));
  const __m512 divisor = _mm512_add_ps(_mm512_set1_ps(1), exp2(exponent));
  return _mm512_div_ps(x, divisor);
}

/// Two vectors, or those of their 32 numbers that `lanes` names.
inline void store_bf16(bf16* to, __m512 first, __m512 second, __mmask32 lanes = ~0u) {
  _mm512_mask_storeu_epi16(to, lanes, (__m512i)_mm512_cvtne2ps_pbh(second, first));
}

inline __m512 load_bf16(const bf16* from) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// Last steps: what is done with one row of a block, its products in two vectors.

struct Store {
  bf16* out_NO;
  long outputs;
  void operator()(long row, long column, __m512 first, __m512 second) const {
    store_bf16(out_NO + row * outputs + column, first, second);
  }
};

struct StoreGelu {
  Store store;
  void operator()(long row, long column, __m512 first, __m512 second) const {
    store(row, column, gelu(first), gelu(second));
  }
};

struct StoreSum {
  Store store;
  const bf16* residual_NO;
  void operator()(long row, long column, __m512 first, __m512 second) const {
    const bf16* residual = residual_NO + row * store.outputs + column;
    store(row, column, _mm512_add_ps(first, load_bf16(residual)),
          _mm512_add_ps(second, load_bf16(residual + 16)));
  }
};

struct SumExp {
  float* sums;  // 16 for each row
  void operator()(long row, long, __m512 first, __m512 second) const {
    const __m512 scale = _mm512_set1_ps(LOG2_E);
    const __m512 both = _mm512_add_ps(exp2(_mm512_mul_ps(first, scale)),
                                      exp2(_mm512_mul_ps(second, scale)));
    _mm512_storeu_ps(sums + row * 16, _mm512_add_ps(_mm512_loadu_ps(sums + row * 16), both));
  }
};

struct Product {
  const bf16* inputs_NI;
  const bf16* weight;  // by panels: (O / 32, I / 32, 2, 16, 16, 2)
  const float* bias_O;
  long rows, inputs, panels;
};

/// A block whose products lie in memory, and how many of its rows have had their last step.
template <class Step>
class Pending {
 public:
  Pending(const Product& product, const Step& step) : product_(product), step_(step) {}

  void start(long row, long panel) {
    row_ = row, column_ = panel * SIDE, done_ = 0;
    rows_ = std::min(SIDE, product_.rows - row);
    current_ ^= 1;
  }
  /// Where the next block's products go: 32 by 32.
  float* next() { return memory_[current_ ^ 1]; }

  inline void advance(long until) {
    for (const long end = std::min(until, rows_); done_ < end; ++done_) {
      const float* at = memory_[current_] + done_ * SIDE;
      const float* bias = product_.bias_O + column_;
      step_(row_ + done_, column_, _mm512_add_ps(_mm512_load_ps(at), _mm512_loadu_ps(bias)),
            _mm512_add_ps(_mm512_load_ps(at + 16), _mm512_loadu_ps(bias + 16)));
    }
  }

 private:
  const Product& product_;
  const Step& step_;
  alignas(64) float memory_[2][SIDE * SIDE];
  int current_ = 0;
  long row_ = 0, column_ = 0, rows_ = 0, done_ = 0;
};

/// Leave the product of 32 rows by 32 columns in tiles 0 to 3. After each step of 32 inputs call
/// `meanwhile(step)`. The weights' loads leave the first cache to the rows, which come round again.
template <class Meanwhile>
inline void add_up_block(const bf16* rows, long stride, const bf16* weight, long steps,
                         const Meanwhile& meanwhile) {
  before_tiles();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (long step = 0; step < steps; ++step, rows += SIDE, weight += 2 * TILE) {
    _tile_loadd(4, rows, stride * sizeof(bf16));
    _tile_stream_loadd(6, weight, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_stream_loadd(7, weight + TILE, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, rows + 16 * stride, stride * sizeof(bf16));
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    meanwhile(step);
  }
}

/// Write tiles 0 to 3 as one block.
inline void store_block(float* out, long stride) {
  _tile_stored(0, out, stride * sizeof(float));
  _tile_stored(1, out + 16, stride * sizeof(float));
  _tile_stored(2, out + 16 * stride, stride * sizeof(float));
  _tile_stored(3, out + 16 * stride + 16, stride * sizeof(float));
}

/// Some rows by some panels of the weight, which stay in a core's own cache meanwhile.
template <class Step>
void multiply(const Product& product, long first_row, long end_row, long first_panel,
              long end_panel, const Step& last_step) {
  const long steps = product.inputs / SIDE, block_size = product.inputs * SIDE;
  const long n_lines = block_size / SIDE;
  const long lines_a_step = divide_up(n_lines, (end_panel - first_panel) * steps);
  const long whole_rows = end_row / SIDE * SIDE;
  Buffer<bf16> last_rows(end_row > whole_rows ? block_size : 0);  // with zeros up to a whole block
  if (end_row > whole_rows) {
    const long size = (end_row - whole_rows) * product.inputs;
    std::copy_n(product.inputs_NI + whole_rows * product.inputs, size, last_rows.data());
    std::fill(last_rows.data() + size, last_rows.data() + block_size, 0);
  }
  Pending<Step> pending(product, last_step);
  for (long row = first_row; row < end_row; row += SIDE) {
    const bf16* inputs =
        row < whole_rows ? product.inputs_NI + row * product.inputs : last_rows.data();
    const bf16* next_inputs = inputs + block_size;
    long line = row + 2 * SIDE <= end_row ? 0 : n_lines;  // of the next inputs, to fetch
    for (long panel = first_panel; panel < end_panel; ++panel) {
      const bf16* weight = product.weight + panel * block_size;
      add_up_block(inputs, product.inputs, weight, steps, [&](long step) {
        for (const long end = std::min(line + lines_a_step, n_lines); line < end; ++line)
          _mm_prefetch(reinterpret_cast<const char*>(next_inputs + line * SIDE), _MM_HINT_T1);
        pending.advance((step + 1) * SIDE / steps);
      });
      store_block(pending.next(), SIDE);
      pending.start(row, panel);
    }
  }
  pending.advance(SIDE);
}

/// How a product is shared out: groups of panels that stay in a core's cache, and where these are
/// too few for the threads, the rows in chunks.
struct Parts {
  long groups, panels, chunks, rows;

  Parts(const Product& product, long threads) {
    const long most = std::max(1L, CACHED_BYTES / (product.inputs * SIDE * long(sizeof(bf16))));
    panels = divide_up(product.panels, divide_up(product.panels, most));
    groups = divide_up(product.panels, panels);
    chunks = std::min(divide_up(PARTS_A_THREAD * threads, groups),
                      divide_up(product.rows, LEAST_ROWS));
    rows = round_up(divide_up(product.rows, chunks), SIDE);
    chunks = divide_up(product.rows, rows);
  }
};

/// Call `body(first_row, end_row, group, first_panel, end_panel)` for all parts, by all threads.
template <class Body>
void for_parts(const Product& product, long threads, const Body& body) {
  if (product.rows == 0) return;
  const Parts parts(product, threads);
#pragma omp parallel num_threads(threads)
  {
    const Tiles tiles;
#pragma omp for schedule(dynamic) collapse(2)
    for (long chunk = 0; chunk < parts.chunks; ++chunk)
      for (long group = 0; group < parts.groups; ++group)
        body(chunk * parts.rows, std::min((chunk + 1) * parts.rows, product.rows), group,
             group * parts.panels, std::min((group + 1) * parts.panels, product.panels));
  }
}

template <class Step>
void multiply_all(const Product& product, long threads, const Step& step) {
  for_parts(product, threads, [&](long first_row, long end_row, long, long first, long end) {
    multiply(product, first_row, end_row, first, end, step);
  });
}

/// Causal attention of one head of one window, 32 queries after the other. The last query sees all
/// keys. What is written by tiles is read by vectors, and the other way round, only after another
/// step, or the core would wait for it.
class HeadAttention {
 public:
  HeadAttention(long queries, long keys, long head_width)
      : queries_(queries), keys_(keys), width_(head_width),
        padded_width_(round_up(head_width, SIDE)), padded_keys_(round_up(keys, SIDE)),
        score_stride_(padded_keys_ + 16), share_stride_(padded_keys_ + SIDE),
        packed_keys_(padded_keys_ * padded_width_), packed_values_(padded_keys_ * padded_width_),
        query_(SIDE * padded_width_), scores_(2 * SIDE * score_stride_),
        shares_(SIDE * share_stride_), mixed_(SIDE * padded_width_) {
    std::fill_n(query_.data(), SIDE * padded_width_, 0);
  }

  /// Rows of queries and results are `query_stride` numbers apart, those of keys and values
  /// `key_stride`.
  void mix(const bf16* query, const bf16* key, const bf16* value, bf16* out, long query_stride,
           long key_stride) {
    pack_keys(key, key_stride);
    pack_values(value, key_stride);
    Some before = some(0), now = before;
    multiply_keys(now, query, query_stride);
    for (; now.first < queries_; before = now, now = some(now.first + SIDE)) {
      normalise(now);
      if (now.first > 0) finish(before, out, query_stride);
      if (now.first + SIDE < queries_) multiply_keys(some(now.first + SIDE), query, query_stride);
      multiply_values(now);
    }
    finish(before, out, query_stride);
  }

 private:
  /// Some queries, the keys that the first of them sees, panels with all that any sees, and which
  /// half of the memory they have.
  struct Some {
    long first, rows, seen, panels, half;
  };

  Some some(long first) const {
    const long rows = std::min(SIDE, queries_ - first), seen = keys_ - queries_ + first + 1;
    return {first, rows, seen, divide_up(seen + rows - 1, SIDE), first / SIDE % 2};
  }

  float* scores(const Some& now) { return &scores_[now.half * SIDE * score_stride_]; }

  /// Keys as weights of a product: (T / 32, K / 32, 2, 16, 16, 2).
  void pack_keys(const bf16* key, long stride) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i rows = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(stride * sizeof(bf16)));
    for (long t = 0; t < padded_keys_; t += 16)
      for (long k = 0; k < padded_width_; k += 2) {
        const long tile = (t / SIDE * (padded_width_ / SIDE) + k / SIDE) * 2 + t % SIDE / 16;
        const __m512i pairs =
            _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), k < width_ ? first_of(keys_ - t) : 0,
                                        rows, key + t * stride + k, 1);
        _mm512_store_si512(&packed_keys_[tile * TILE + k % SIDE / 2 * SIDE], pairs);
      }
  }

  /// Values as weights of a product that adds up over keys: (K / 32, T / 32, 2, 16, 16, 2).
  void pack_values(const bf16* value, long stride) {
    const auto sixteen = [&](long t, long k) {
      if (t >= keys_ || k >= width_) return _mm512_setzero_si512();
      const auto* from = reinterpret_cast<const __m256i*>(value + t * stride + k);
      return _mm512_cvtepu16_epi32(_mm256_loadu_si256(from));
    };
    for (long k = 0; k < padded_width_; k += 16)
      for (long t = 0; t < padded_keys_; t += 2) {
        const long tile = (k / SIDE * (padded_keys_ / SIDE) + t / SIDE) * 2 + k % SIDE / 16;
        const __m512i odd = _mm512_slli_epi32(sixteen(t + 1, k), 16);
        _mm512_store_si512(&packed_values_[tile * TILE + t % SIDE / 2 * SIDE],
                           _mm512_or_si512(sixteen(t, k), odd));
      }
  }

  void multiply_keys(const Some& now, const bf16* query, long stride) {
    for (long row = 0; row < now.rows; ++row)
      std::copy_n(query + (now.first + row) * stride, width_, &query_[row * padded_width_]);
    for (long panel = 0; panel < now.panels; ++panel) {
      const bf16* keys = &packed_keys_[panel * padded_width_ * SIDE];
      add_up_block(query_.data(), padded_width_, keys, padded_width_ / SIDE, [](long) {});
      store_block(scores(now) + panel * SIDE, score_stride_);
    }
  }

  /// Scores of each query to its shares of the keys it sees, not yet divided by their sum.
  void normalise(const Some& now) {
    for (long row = 0; row < now.rows; ++row)
      sums_[now.half][row] = exponentiate(scores(now) + row * score_stride_, now.seen + row,
                                          now.panels * SIDE, &shares_[row * share_stride_]);
  }

  /// Exponentials of the scores seen, less the largest; zeros for later ones. Their sum.
  float exponentiate(const float* scores, long seen, long end, bf16* shares) const {
    const __m512 lowest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
    __m512 largest = lowest, sum = _mm512_setzero_ps();
    for (long t = 0; t < seen; t += 16)
      largest = _mm512_max_ps(largest, _mm512_mask_loadu_ps(lowest, first_of(seen - t), scores + t));
    const __m512 scale = _mm512_set1_ps(LOG2_E / std::sqrt(static_cast<float>(width_)));
    const __m512 shift = _mm512_mul_ps(_mm512_set1_ps(_mm512_reduce_max_ps(largest)), scale);
    const auto sixteen = [&](long t) {
      const __m512 exponent = _mm512_fmsub_ps(_mm512_loadu_ps(scores + t), scale, shift);
      return _mm512_maskz_mov_ps(first_of(seen - t), exp2(exponent));
    };
    for (long t = 0; t < end; t += SIDE) {
      const __m512 first = sixteen(t), second = sixteen(t + 16);
      sum = _mm512_add_ps(sum, _mm512_add_ps(first, second));
      store_bf16(shares + t, first, second);
    }
    return _mm512_reduce_add_ps(sum);
  }

  void multiply_values(const Some& now) {
    for (long column = 0; column < padded_width_; column += SIDE) {
      const bf16* values = &packed_values_[column * padded_keys_];
      add_up_block(shares_.data(), share_stride_, values, now.panels, [](long) {});
      store_block(&mixed_[column], padded_width_);
    }
  }

  void finish(const Some& now, bf16* out, long stride) {
    for (long row = 0; row < now.rows; ++row) {
      const __m512 share = _mm512_set1_ps(1 / sums_[now.half][row]);
      for (long column = 0; column < width_; column += SIDE) {
        const float* mixed = &mixed_[row * padded_width_ + column];
        store_bf16(out + (now.first + row) * stride + column,
                   _mm512_mul_ps(_mm512_load_ps(mixed), share),
                   _mm512_mul_ps(_mm512_load_ps(mixed + 16), share),
                   column + SIDE <= width_ ? ~0u : 0xffffu);
      }
    }
  }

  /// The lanes of a vector that are among the first `count` ones.
  static __mmask16 first_of(long count) {
    return count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1;
  }

  const long queries_, keys_, width_, padded_width_, padded_keys_, score_stride_, share_stride_;
  Buffer<bf16> packed_keys_, packed_values_, query_;
  Buffer<float> scores_;
  Buffer<bf16> shares_;
  Buffer<float> mixed_;
  float sums_[2][SIDE];
};

}  // namespace

extern "C" {

/// Ask the system for the tiles; whether they may be used.
bool amx_allowed() {
  constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

/// Inputs (N, I), weight by panels, bias (O,) float32, out (N, O).
void amx_product(const bf16* inputs, const bf16* weight, const float* bias, bf16* out, long rows,
                 long n_inputs, long panels, long threads) {
  multiply_all({inputs, weight, bias, rows, n_inputs, panels}, threads, Store{out, panels * SIDE});
}

void amx_gelu(const bf16* inputs, const bf16* weight, const float* bias, bf16* out, long rows,
              long n_inputs, long panels, long threads) {
  multiply_all({inputs, weight, bias, rows, n_inputs, panels}, threads,
               StoreGelu{{out, panels * SIDE}});
}

/// Residual (N, O), which may be `out`.
void amx_add(const bf16* inputs, const bf16* weight, const float* bias, const bf16* residual,
             bf16* out, long rows, long n_inputs, long panels, long threads) {
  multiply_all({inputs, weight, bias, rows, n_inputs, panels}, threads,
               StoreSum{{out, panels * SIDE}, residual});
}

/// Sums of exponentials for each group of panels, float32, (`amx_groups`, N).
void amx_sum_exp(const bf16* inputs, const bf16* weight, const float* bias, float* sums, long rows,
                 long n_inputs, long panels, long threads) {
  const Product product{inputs, weight, bias, rows, n_inputs, panels};
  for_parts(product, threads, [&](long first_row, long end_row, long group, long first, long end) {
    Buffer<float> lanes((end_row - first_row) * 16);
    std::fill_n(lanes.data(), (end_row - first_row) * 16, 0.0f);
    multiply(product, first_row, end_row, first, end, SumExp{lanes.data() - first_row * 16});
    for (long row = first_row; row < end_row; ++row)
      sums[group * rows + row] =
          _mm512_reduce_add_ps(_mm512_loadu_ps(&lanes[(row - first_row) * 16]));
  });
}

long amx_groups(long n_inputs, long panels) {
  return Parts({nullptr, nullptr, nullptr, 1, n_inputs, panels}, 1).groups;
}

/// Queries and out (B, S, H K), keys and values together (B, T, 2 H K).
void amx_attention(const bf16* query, const bf16* key_value, bf16* out, long windows, long queries,
                   long keys, long heads, long head_width, long threads) {
  const long width = heads * head_width;
#pragma omp parallel num_threads(threads)
  {
    const Tiles tiles;
    HeadAttention attention(queries, keys, head_width);
#pragma omp for schedule(dynamic) collapse(2)
    for (long window = 0; window < windows; ++window)
      for (long head = 0; head < heads; ++head) {
        const long at = window * queries * width + head * head_width;
        const bf16* key = key_value + window * keys * 2 * width + head * head_width;
        attention.mix(query + at, key, key + width, out + at, width, 2 * width);
      }
  }
}

}  // extern "C"
