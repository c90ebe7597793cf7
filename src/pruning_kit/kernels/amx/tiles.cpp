// Products of matrices on Intel's AMX units, each with its last step, and GPT-2's attention.
//
// Compiled on the machine it runs on and called by `library.py`; equal to `linear.DenseLinear` and
// `attention.SdpaAttention`, but for more digits kept in bfloat16: what a product adds up stays in
// float32 until its last step is done.
//
// The units multiply bfloat16 and add up in float32. A float32 number is the sum of three in
// bfloat16, its terms: a product of two such numbers is the sum of the six products of terms that
// are not below its last digit. Small ones are added up first and the large one after them, so that
// the sum is rounded as often as one of float32 products is.
//
// A tile holds 16 rows of 64 bytes. Four tiles add up a block of 32 rows by 32 columns, two hold rows
// of the inputs and two columns of the weight. The last step is vector work: a block has it while the
// tiles multiply the next one.
//
// Longer than 350 lines: products, their last steps and attention share the tiles' set-up, the
// layout of panels and the split over threads, and are compiled as one file.
//
// Shapes: N rows, I inputs (a multiple of 32), O outputs (in panels of 32), T keys, S queries,
// K width of a head (a multiple of 16), C terms.

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
constexpr long CHUNK_STEPS = 8;        // of inputs that are added up at once
constexpr long PARTS_A_THREAD = 8;     // at least, so that none waits long for the others
constexpr long LEAST_ROWS = 128;       // worth fetching weights for
constexpr float LOG2_E = 1.4426950408889634f;

/// Terms in bfloat16 that a number is the sum of, and the products of them that count.
template <class Number>
constexpr long TERMS = 3;
template <>
constexpr long TERMS<bf16> = 1;
template <class Number>
constexpr long PRODUCTS = TERMS<Number> == 3 ? 6 : 1;

/// Numbers of a weight's panel in one step of 32 inputs: two tiles for each term.
constexpr long TERM = 2 * TILE;
template <class Number>
constexpr long STEP = TERMS<Number> * TERM;

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

/// Memory that begins with a cache line, as tiles want it. Where there is none left the process ends,
/// as it does when the system has none.
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

inline __m512 widen(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

inline __m512 load(const bf16* from) {
  return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
inline __m512 load(const float* from) { return _mm512_loadu_ps(from); }

/// Two vectors, or those of their 32 numbers that `lanes` names.
inline void store(bf16* to, __m512 first, __m512 second, __mmask32 lanes = ~0u) {
  _mm512_mask_storeu_epi16(to, lanes, (__m512i)_mm512_cvtne2ps_pbh(second, first));
}
inline void store(float* to, __m512 first, __m512 second, __mmask32 lanes = ~0u) {
  _mm512_mask_storeu_ps(to, lanes, first);
  _mm512_mask_storeu_ps(to + 16, lanes >> 16, second);
}

/// The terms of two vectors, each `apart` from the last.
template <long terms>
inline void store_terms(bf16* to, long apart, __m512 first, __m512 second) {
  for (long term = 0; term < terms; ++term, to += apart) {
    const __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(second, first);
    _mm512_storeu_si512(to, rounded);
    if (term + 1 == terms) break;
    first = _mm512_sub_ps(first, widen(_mm512_castsi512_si256(rounded)));
    second = _mm512_sub_ps(second, widen(_mm512_extracti64x4_epi64(rounded, 1)));
  }
}

/// `count` numbers, a multiple of 16, as terms.
template <class Number>
inline void copy_terms(const Number* from, bf16* to, long apart, long count) {
  for (long at = 0; at < count; at += SIDE) {
    const __m512 second = at + 16 < count ? load(from + at + 16) : _mm512_setzero_ps();
    store_terms<TERMS<Number>>(to + at, apart, load(from + at), second);
  }
}
template <>
inline void copy_terms(const bf16* from, bf16* to, long, long count) {
  std::copy_n(from, count, to);
}

// Last steps: what is done with the rows of a block, one after the other from `start` on, the
// products of each in two vectors. Their state is a few numbers that stay in registers.

template <class Number>
struct Store {
  Number* out_NO;
  long outputs;
  Number* at = nullptr;
  inline void start(long row, long column) { at = out_NO + row * outputs + column; }
  inline void next(__m512 first, __m512 second) { store(at, first, second), at += outputs; }
};

template <class Number>
struct StoreGelu {
  Store<Number> store;
  inline void start(long row, long column) { store.start(row, column); }
  inline void next(__m512 first, __m512 second) { store.next(gelu(first), gelu(second)); }
};

template <class Number>
struct StoreSum {
  Store<Number> store;
  const Number* residual_NO;
  inline void start(long row, long column) { store.start(row, column); }
  inline void next(__m512 first, __m512 second) {
    const Number* residual = residual_NO + (store.at - store.out_NO);
    store.next(_mm512_add_ps(first, load(residual)), _mm512_add_ps(second, load(residual + 16)));
  }
};

struct SumExp {
  float* sums;  // 16 for each row
  float* at = nullptr;
  inline void start(long row, long) { at = sums + row * 16; }
  inline void next(__m512 first, __m512 second) {
    const __m512 scale = _mm512_set1_ps(LOG2_E);
    const __m512 both = _mm512_add_ps(exp2(_mm512_mul_ps(first, scale)),
                                      exp2(_mm512_mul_ps(second, scale)));
    _mm512_storeu_ps(at, _mm512_add_ps(_mm512_loadu_ps(at), both));
    at += 16;
  }
};

/// `SumExp`, and the largest exponentials behind the sums.
struct SumMaxExp {
  float* sums;  // 16 for each row, and as many of the largest `apart` from them
  long apart;
  float* at = nullptr;
  inline void start(long row, long) { at = sums + row * 16; }
  inline void next(__m512 first, __m512 second) {
    const __m512 scale = _mm512_set1_ps(LOG2_E);
    const __m512 one = exp2(_mm512_mul_ps(first, scale));
    const __m512 other = exp2(_mm512_mul_ps(second, scale));
    _mm512_storeu_ps(at, _mm512_add_ps(_mm512_loadu_ps(at), _mm512_add_ps(one, other)));
    const __m512 largest = _mm512_loadu_ps(at + apart);
    _mm512_storeu_ps(at + apart, _mm512_max_ps(largest, _mm512_max_ps(one, other)));
    at += 16;
  }
};

template <class Number>
struct Product {
  const Number* inputs_NI;
  const bf16* weight;  // by panels: (O / 32, I / 32, C, 2, 16, 16, 2)
  const float* bias_O;
  long rows, inputs, panels;
};

/// Some rows by some panels.
struct Part {
  long first_row, end_row, first_panel, end_panel;

  long n_panels() const { return end_panel - first_panel; }
  long n_blocks() const { return divide_up(end_row - first_row, SIDE) * n_panels(); }
};

/// Some steps of 32 inputs, which are added up at once.
struct Chunk {
  long first_step, steps;
  bool is_first, is_last;
};

/// A block whose products lie in memory, and its rows that wait for their last step. Where inputs
/// come in several chunks, what they add up to meanwhile is kept.
template <class Step>
struct Pending {
  Step step;
  const float* products = nullptr;
  float* sums = nullptr;  // of the chunks up to this one, where there are several
  long rows = 0;
  bool is_first = true, is_last = true;  // of the chunks
  __m512 bias_1{}, bias_2{};

  inline void advance(long most) {
    for (; most > 0 && rows > 0; --most, --rows, products += SIDE) {
      __m512 first = _mm512_load_ps(products), second = _mm512_load_ps(products + 16);
      if (!is_first) {
        first = _mm512_add_ps(first, _mm512_load_ps(sums));
        second = _mm512_add_ps(second, _mm512_load_ps(sums + 16));
      }
      if (is_last)
        step.next(_mm512_add_ps(first, bias_1), _mm512_add_ps(second, bias_2));
      else
        store(sums, first, second);
      if (!is_first || !is_last) sums += SIDE;
    }
  }
};

/// Where tiles read the rows of a block: numbers from one row to the next, and between its terms.
struct Rows {
  const bf16* first;
  long stride, apart;
};

/// The rows of a block in terms, and those of the next one, made meanwhile: line by line, each 32
/// inputs of a row.
template <class Number>
class Inputs {
 public:
  Inputs(const Product<Number>& product, const Part& part, const Chunk& chunk)
      : product_(product), part_(part), chunk_(chunk), apart_(chunk.steps * SIDE),
        stride_((TERMS<Number> * chunk.steps | 1) * SIDE),  // odd: no two rows' lines collide
        memory_(2 * SIDE * stride_), next_row_(part.first_row) {
    advance(SIDE * chunk.steps);
  }

  void start(long row) { row_ = row, next_row_ = row + SIDE, line_row_ = 0, line_at_ = 0; }
  Rows rows() { return {half(row_), stride_, apart_}; }

  inline void advance(long lines) {
    if (next_row_ >= part_.end_row) return;
    for (; lines > 0 && line_row_ < SIDE; --lines) {
      bf16* to = half(next_row_) + line_row_ * stride_ + line_at_;
      __m512 first = _mm512_setzero_ps(), second = first;
      if (next_row_ + line_row_ < product_.rows) {
        const Number* from = product_.inputs_NI + (next_row_ + line_row_) * product_.inputs +
                             chunk_.first_step * SIDE + line_at_;
        first = load(from), second = load(from + 16);
        const Number* later = from + SIDE * product_.inputs;
        _mm_prefetch(reinterpret_cast<const char*>(later), _MM_HINT_T1);
        _mm_prefetch(reinterpret_cast<const char*>(later + 16), _MM_HINT_T1);
      }
      store_terms<TERMS<Number>>(to, apart_, first, second);
      line_at_ += SIDE;
      if (line_at_ == apart_) line_at_ = 0, ++line_row_;
    }
  }

 private:
  bf16* half(long row) { return &memory_[(row - part_.first_row) / SIDE % 2 * SIDE * stride_]; }

  const Product<Number>& product_;
  const Part& part_;
  const Chunk& chunk_;
  const long apart_, stride_;
  Buffer<bf16> memory_;
  long row_ = 0, next_row_, line_row_ = 0, line_at_ = 0;
};

/// Numbers that are their only term are read where they lie; the next ones are fetched meanwhile.
template <>
class Inputs<bf16> {
 public:
  Inputs(const Product<bf16>& product, const Part& part, const Chunk&)
      : product_(product), part_(part), whole_rows_(part.end_row / SIDE * SIDE),
        last_rows_(part.end_row > whole_rows_ ? SIDE * product.inputs : 0) {
    if (part.end_row == whole_rows_) return;  // else zeros fill a whole block
    const long size = (part.end_row - whole_rows_) * product.inputs;
    std::copy_n(product.inputs_NI + whole_rows_ * product.inputs, size, last_rows_.data());
    std::fill(last_rows_.data() + size, last_rows_.data() + SIDE * product.inputs, 0);
  }

  inline void start(long row) {
    row_ = row;
    line_ = product_.inputs_NI + std::min(row + SIDE, part_.end_row) * product_.inputs;
    end_ = product_.inputs_NI + std::min(row + 2 * SIDE, part_.end_row) * product_.inputs;
  }
  Rows rows() {
    const bf16* first =
        row_ < whole_rows_ ? product_.inputs_NI + row_ * product_.inputs : last_rows_.data();
    return {first, product_.inputs, 0};
  }

  inline void advance(long lines) {
    for (; lines > 0 && line_ < end_; --lines, line_ += SIDE)
      _mm_prefetch(reinterpret_cast<const char*>(line_), _MM_HINT_T1);
  }

 private:
  const Product<bf16>& product_;
  const Part& part_;
  const long whole_rows_;
  Buffer<bf16> last_rows_;
  long row_ = 0;
  const bf16 *line_ = nullptr, *end_ = nullptr;
};

// Four products of tiles: two with rows (4 and 5), two with columns (6 and 7), of which some are
// loaded first. The weights' loads leave the first cache to the rows, which come round again.

inline void multiply_new(const bf16* rows, long bytes, const bf16* weight) {
  _tile_loadd(4, rows, bytes);
  _tile_stream_loadd(6, weight, 64);
  _tile_dpbf16ps(0, 4, 6);
  _tile_stream_loadd(7, weight + TILE, 64);
  _tile_dpbf16ps(1, 4, 7);
  _tile_loadd(5, rows + 8 * bytes, bytes);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

inline void multiply_new_rows(const bf16* rows, long bytes) {
  _tile_loadd(4, rows, bytes);
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_loadd(5, rows + 8 * bytes, bytes);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

inline void multiply_new_columns(const bf16* weight) {
  _tile_stream_loadd(6, weight, 64);
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(2, 5, 6);
  _tile_stream_loadd(7, weight + TILE, 64);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(3, 5, 7);
}

/// Leave the product of 32 rows by 32 columns in tiles 0 to 3. `meanwhile` is called after each of
/// the `steps * PRODUCTS` fourfold products.
template <class Number, class Meanwhile>
inline void add_up_block(const Rows& rows, const bf16* weight, long steps,
                         const Meanwhile& meanwhile) {
  const long bytes = rows.stride * sizeof(bf16);
  before_tiles();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  if constexpr (TERMS<Number> == 3) {
    for (long step = 0; step < steps; ++step) {
      const bf16* large = rows.first + step * SIDE;
      const bf16* columns = weight + step * STEP<Number>;
      multiply_new(large, bytes, columns + 2 * TERM);
      meanwhile();
      multiply_new_columns(columns + TERM);
      meanwhile();
      multiply_new_rows(large + rows.apart, bytes);
      meanwhile();
      multiply_new_columns(columns);
      meanwhile();
      multiply_new_rows(large + 2 * rows.apart, bytes);
      meanwhile();
    }
  }
  for (long step = 0; step < steps; ++step) {
    multiply_new(rows.first + step * SIDE, bytes, weight + step * STEP<Number>);
    meanwhile();
  }
}

/// Write tiles 0 to 3 as one block.
inline void store_block(float* out, long stride) {
  _tile_stored(0, out, stride * sizeof(float));
  _tile_stored(1, out + 16, stride * sizeof(float));
  _tile_stored(2, out + 16 * stride, stride * sizeof(float));
  _tile_stored(3, out + 16 * stride + 16, stride * sizeof(float));
}

/// How a product is shared out: groups of panels that stay in a core's cache, and where these are
/// too few for the threads, the rows in some pieces. Inputs of float32 come in chunks, which bounds
/// their terms' memory and how often a sum is rounded.
template <class Number>
struct Parts {
  long groups, panels, pieces, rows, chunks;

  Parts(const Product<Number>& product, long threads) {
    const long steps = product.inputs / SIDE;
    chunks = TERMS<Number> == 1 ? 1 : divide_up(steps, CHUNK_STEPS);
    const long bytes = divide_up(steps, chunks) * STEP<Number> * sizeof(bf16);
    const long most = std::max(1L, CACHED_BYTES / bytes);
    panels = divide_up(product.panels, divide_up(product.panels, most));
    groups = divide_up(product.panels, panels);
    pieces = std::min(divide_up(PARTS_A_THREAD * threads, groups),
                      divide_up(product.rows, LEAST_ROWS));
    rows = round_up(divide_up(product.rows, pieces), SIDE);
    pieces = divide_up(product.rows, rows);
  }

  Chunk chunk(const Product<Number>& product, long index) const {
    const long steps = product.inputs / SIDE;
    const long first = index * steps / chunks, end = (index + 1) * steps / chunks;
    return {first, end - first, index == 0, index + 1 == chunks};
  }
};

/// One part of a product; its panels stay in a core's own cache meanwhile.
template <class Number, class Step>
void multiply(const Product<Number>& product, const Parts<Number>& parts, const Part& part,
              const Step& last_step) {
  constexpr long BLOCK = SIDE * SIDE;
  alignas(64) float memory[2][BLOCK];
  Buffer<float> sums(parts.chunks > 1 ? part.n_blocks() * BLOCK : 0);
  Pending<Step> pending{last_step};
  for (long index = 0; index < parts.chunks; ++index) {
    const Chunk chunk = parts.chunk(product, index);
    Inputs<Number> inputs(product, part, chunk);
    const long calls = PRODUCTS<Number> * chunk.steps;
    const long rows_a_call = divide_up(SIDE, calls);
    const long lines_a_call = divide_up(SIDE * chunk.steps, part.n_panels() * calls);
    long block = 0;
    for (long row = part.first_row; row < part.end_row; row += SIDE) {
      inputs.start(row);
      for (long panel = part.first_panel; panel < part.end_panel; ++panel, ++block) {
        const long step = panel * (product.inputs / SIDE) + chunk.first_step;
        const bf16* weight = product.weight + step * STEP<Number>;
        add_up_block<Number>(inputs.rows(), weight, chunk.steps, [&] {
          inputs.advance(lines_a_call);
          pending.advance(rows_a_call);
        });
        store_block(memory[block % 2], SIDE);
        pending.step.start(row, panel * SIDE);
        pending.products = memory[block % 2];
        pending.rows = std::min(SIDE, part.end_row - row);
        if constexpr (TERMS<Number> > 1) {  // else there is one chunk, and less to keep track of
          pending.sums = parts.chunks > 1 ? &sums[block * BLOCK] : nullptr;
          pending.is_first = chunk.is_first;
          pending.is_last = chunk.is_last;
        }
        pending.bias_1 = _mm512_loadu_ps(product.bias_O + panel * SIDE);
        pending.bias_2 = _mm512_loadu_ps(product.bias_O + panel * SIDE + 16);
      }
    }
    pending.advance(SIDE);
  }
}

/// Call `body(parts, part, group)` for all parts, by all threads.
template <class Number, class Body>
void for_parts(const Product<Number>& product, long threads, const Body& body) {
  if (product.rows == 0) return;
  const Parts<Number> parts(product, threads);
#pragma omp parallel num_threads(threads)
  {
    const Tiles tiles;
#pragma omp for schedule(dynamic) collapse(2)
    for (long piece = 0; piece < parts.pieces; ++piece)
      for (long group = 0; group < parts.groups; ++group)
        body(parts,
             Part{piece * parts.rows, std::min((piece + 1) * parts.rows, product.rows),
                  group * parts.panels, std::min((group + 1) * parts.panels, product.panels)},
             group);
  }
}

template <class Number, class Step>
void multiply_all(const Product<Number>& product, long threads, const Step& step) {
  for_parts(product, threads, [&](const Parts<Number>& parts, const Part& part, long) {
    multiply(product, parts, part, step);
  });
}

/// The lanes of a vector that are among the first `count` ones.
inline __mmask16 first_of(long count) {
  return count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1;
}

/// Sixteen numbers, and those that follow each in memory.
struct Neighbours {
  __m512 even, odd;
};

inline __m512i upper_half(__m512i bits) {
  return _mm512_and_si512(bits, _mm512_set1_epi32(static_cast<int>(0xffff0000)));
}

/// Two numbers at each of `places`, in bytes; zeros for other lanes than those named.
inline Neighbours gather(const bf16* from, __m512i places, __mmask16 lanes) {
  const __m512i both =
      _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), lanes, places, from, 1);
  return {_mm512_castsi512_ps(_mm512_slli_epi32(both, 16)), _mm512_castsi512_ps(upper_half(both))};
}
inline Neighbours gather(const float* from, __m512i places, __mmask16 lanes) {
  const __m512 zero = _mm512_setzero_ps();
  return {_mm512_mask_i32gather_ps(zero, lanes, places, from, 1),
          _mm512_mask_i32gather_ps(zero, lanes, places, from + 1, 1)};
}

/// The terms of neighbours as one row of a weight's tile, each `apart` from the last.
template <long terms>
inline void store_pairs(bf16* to, long apart, Neighbours pair) {
  for (long term = 0; term < terms; ++term, to += apart) {
    const __m512 even = terms == 1 ? pair.even : widen((__m256i)_mm512_cvtneps_pbh(pair.even));
    const __m512 odd = terms == 1 ? pair.odd : widen((__m256i)_mm512_cvtneps_pbh(pair.odd));
    const __m512i lower = _mm512_srli_epi32(_mm512_castps_si512(even), 16);
    _mm512_store_si512(to, _mm512_or_si512(lower, _mm512_castps_si512(odd)));
    pair = {_mm512_sub_ps(pair.even, even), _mm512_sub_ps(pair.odd, odd)};
  }
}

/// Causal attention of one head of one window, 32 queries after the other. The last query sees all
/// keys. What is written by tiles is read by vectors, and the other way round, only after another
/// step, or the core would wait for it.
template <class Number>
class HeadAttention {
 public:
  HeadAttention(long queries, long keys, long head_width)
      : queries_(queries), keys_(keys), width_(head_width),
        padded_width_(round_up(head_width, SIDE)), padded_keys_(round_up(keys, SIDE)),
        query_stride_(C * padded_width_), score_stride_(padded_keys_ + 16),
        share_stride_(C * padded_keys_ + SIDE), packed_keys_(C * padded_keys_ * padded_width_),
        packed_values_(C * padded_keys_ * padded_width_), query_(SIDE * query_stride_),
        scores_(2 * SIDE * score_stride_), shares_(SIDE * share_stride_),
        mixed_(SIDE * padded_width_) {
    std::fill_n(query_.data(), SIDE * query_stride_, 0);
  }

  /// Rows of queries and results are `query_stride` numbers apart, those of keys and values
  /// `key_stride`.
  void mix(const Number* query, const Number* key, const Number* value, Number* out,
           long query_stride, long key_stride) {
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
  static constexpr long C = TERMS<Number>;

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

  /// Keys as weights of a product: (T / 32, K / 32, C, 2, 16, 16, 2).
  void pack_keys(const Number* key, long stride) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i rows = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(stride * sizeof(Number)));
    for (long t = 0; t < padded_keys_; t += 16)
      for (long k = 0; k < padded_width_; k += 2) {
        const long step = t / SIDE * (padded_width_ / SIDE) + k / SIDE;
        const __mmask16 some = k < width_ ? first_of(keys_ - t) : 0;
        store_pairs<C>(&packed_keys_[step * STEP<Number> + t % SIDE / 16 * TILE +
                                     k % SIDE / 2 * SIDE],
                       TERM, gather(key + t * stride + k, rows, some));
      }
  }

  /// Values as weights of a product that adds up over keys: (K / 32, T / 32, C, 2, 16, 16, 2).
  void pack_values(const Number* value, long stride) {
    const auto sixteen = [&](long t, long k) {
      return t < keys_ && k < width_ ? load(value + t * stride + k) : _mm512_setzero_ps();
    };
    for (long k = 0; k < padded_width_; k += 16)
      for (long t = 0; t < padded_keys_; t += 2) {
        const long step = k / SIDE * (padded_keys_ / SIDE) + t / SIDE;
        store_pairs<C>(&packed_values_[step * STEP<Number> + k % SIDE / 16 * TILE +
                                       t % SIDE / 2 * SIDE],
                       TERM, {sixteen(t, k), sixteen(t + 1, k)});
      }
  }

  void multiply_keys(const Some& now, const Number* query, long stride) {
    for (long row = 0; row < now.rows; ++row)
      copy_terms(query + (now.first + row) * stride, &query_[row * query_stride_], padded_width_,
                 width_);
    const long steps = padded_width_ / SIDE;
    for (long panel = 0; panel < now.panels; ++panel) {
      const bf16* keys = &packed_keys_[panel * steps * STEP<Number>];
      add_up_block<Number>({query_.data(), query_stride_, padded_width_}, keys, steps, [] {});
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
      store_terms<C>(shares + t, padded_keys_, first, second);
    }
    return _mm512_reduce_add_ps(sum);
  }

  void multiply_values(const Some& now) {
    for (long column = 0; column < padded_width_; column += SIDE) {
      const bf16* values = &packed_values_[column * padded_keys_ * C];
      add_up_block<Number>({shares_.data(), share_stride_, padded_keys_}, values, now.panels,
                           [] {});
      store_block(&mixed_[column], padded_width_);
    }
  }

  void finish(const Some& now, Number* out, long stride) {
    for (long row = 0; row < now.rows; ++row) {
      const __m512 share = _mm512_set1_ps(1 / sums_[now.half][row]);
      for (long column = 0; column < width_; column += SIDE) {
        const float* mixed = &mixed_[row * padded_width_ + column];
        store(out + (now.first + row) * stride + column,
              _mm512_mul_ps(_mm512_load_ps(mixed), share),
              _mm512_mul_ps(_mm512_load_ps(mixed + 16), share),
              column + SIDE <= width_ ? ~0u : 0xffffu);
      }
    }
  }

  const long queries_, keys_, width_, padded_width_, padded_keys_;
  const long query_stride_, score_stride_, share_stride_;
  Buffer<bf16> packed_keys_, packed_values_, query_;
  Buffer<float> scores_;
  Buffer<bf16> shares_;
  Buffer<float> mixed_;
  float sums_[2][SIDE];
};

/// The product of two rows.
template <class Number>
inline float dot(const Number* one, const Number* other, long size) {
  __m512 sums[2] = {};
  for (long at = 0; at < size; at += SIDE)
    for (long half = 0; half < 2; ++half) {
      const long from = at + half * 16;
      sums[half] = _mm512_fmadd_ps(load(one + from), load(other + from), sums[half]);
    }
  return _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]));
}

template <class Number>
void dots(const Number* inputs, const Number* weight, const std::int64_t* chosen, float* out,
          long rows, long size, long threads) {
#pragma omp parallel for num_threads(threads)
  for (long row = 0; row < rows; ++row)
    out[row] = dot(inputs + row * size, weight + chosen[row] * size, size);
}

/// The mean of some rows, 32 columns by each thread at a time.
template <class Number>
void mean(const Number* inputs, const std::int64_t* chosen, long n_chosen, float* out, long size) {
  const __m512 share = _mm512_set1_ps(1.0f / n_chosen);
#pragma omp for
  for (long column = 0; column < size; column += SIDE) {
    __m512 first = _mm512_setzero_ps(), second = first;
    for (long at = 0; at < n_chosen; ++at) {
      const Number* row = inputs + chosen[at] * size + column;
      first = _mm512_add_ps(first, load(row)), second = _mm512_add_ps(second, load(row + 16));
    }
    store(out + column, _mm512_mul_ps(first, share), _mm512_mul_ps(second, share));
  }
}

/// Rows of 8 bits, each with a scale of its own, by a vector.
inline void multiply_small(const std::int8_t* weight, const float* scale_O, const float* input,
                           const float* added_O, float* out_O, long outputs, long size) {
#pragma omp for
  for (long row = 0; row < outputs; ++row) {
    __m512 sums[2] = {};
    for (long at = 0; at < size; at += SIDE)
      for (long half = 0; half < 2; ++half) {
        const long from = at + half * 16;
        const auto* bits = reinterpret_cast<const __m128i*>(weight + row * size + from);
        const __m512 numbers = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(bits)));
        sums[half] = _mm512_fmadd_ps(numbers, _mm512_loadu_ps(input + from), sums[half]);
      }
    const float sum = _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]));
    out_O[row] = added_O[row] + scale_O[row] * sum;
  }
}

template <class Number>
void sum_exp(const Product<Number>& product, float* sums, long threads) {
  for_parts(product, threads, [&](const Parts<Number>& parts, const Part& part, long group) {
    const long rows = part.end_row - part.first_row;
    Buffer<float> lanes(rows * 16);
    std::fill_n(lanes.data(), rows * 16, 0.0f);
    multiply(product, parts, part, SumExp{lanes.data() - part.first_row * 16});
    for (long row = 0; row < rows; ++row)
      sums[group * product.rows + part.first_row + row] =
          _mm512_reduce_add_ps(_mm512_loadu_ps(&lanes[row * 16]));
  });
}

template <class Number>
void sum_max_exp(const Product<Number>& product, float* sums, float* maxima, long threads) {
  for_parts(product, threads, [&](const Parts<Number>& parts, const Part& part, long group) {
    const long rows = part.end_row - part.first_row, apart = rows * 16;
    Buffer<float> lanes(2 * apart);
    std::fill_n(lanes.data(), 2 * apart, 0.0f);
    multiply(product, parts, part, SumMaxExp{lanes.data() - part.first_row * 16, apart});
    for (long row = 0; row < rows; ++row) {
      const long at = group * product.rows + part.first_row + row;
      sums[at] = _mm512_reduce_add_ps(_mm512_loadu_ps(&lanes[row * 16]));
      maxima[at] = _mm512_reduce_max_ps(_mm512_loadu_ps(&lanes[apart + row * 16]));
    }
  });
}

template <class Number>
void attention(const Number* query, const Number* key_value, Number* out, long windows,
               long queries, long keys, long heads, long head_width, long threads) {
  const long width = heads * head_width;
#pragma omp parallel num_threads(threads)
  {
    const Tiles tiles;
    HeadAttention<Number> head_attention(queries, keys, head_width);
#pragma omp for schedule(dynamic) collapse(2)
    for (long window = 0; window < windows; ++window)
      for (long head = 0; head < heads; ++head) {
        const long at = window * queries * width + head * head_width;
        const Number* key = key_value + window * keys * 2 * width + head * head_width;
        head_attention.mix(query + at, key, key + width, out + at, width, 2 * width);
      }
  }
}

}  // namespace

// What `amx.py` calls, for each format: inputs (N, I), weight by panels, bias (O,) float32,
// residual (N, O), out (N, O) in a memory of its own. Sums of exponentials float32, for each of
// `amx_groups` groups of panels (G, N). Queries and mixed values (B, S, H K), keys and values
// together (B, T, 2 H K). Rows of a weight that are `chosen` for inputs (N,) int64.
#define FOR_FORMAT(Number, format)                                                                \
  void amx_product_##format(const Number* inputs, const bf16* weight, const float* bias,          \
                            Number* out, long rows, long n_inputs, long panels, long threads) {   \
    multiply_all<Number>({inputs, weight, bias, rows, n_inputs, panels}, threads,                 \
                         Store<Number>{out, panels * SIDE});                                      \
  }                                                                                               \
  void amx_gelu_##format(const Number* inputs, const bf16* weight, const float* bias,             \
                         Number* out, long rows, long n_inputs, long panels, long threads) {      \
    multiply_all<Number>({inputs, weight, bias, rows, n_inputs, panels}, threads,                 \
                         StoreGelu<Number>{{out, panels * SIDE}});                                \
  }                                                                                               \
  void amx_add_##format(const Number* inputs, const bf16* weight, const float* bias,              \
                        const Number* residual, Number* out, long rows, long n_inputs,            \
                        long panels, long threads) {                                              \
    multiply_all<Number>({inputs, weight, bias, rows, n_inputs, panels}, threads,                 \
                         StoreSum<Number>{{out, panels * SIDE}, residual});                       \
  }                                                                                               \
  void amx_sum_exp_##format(const Number* inputs, const bf16* weight, const float* bias,          \
                            float* sums, long rows, long n_inputs, long panels, long threads) {   \
    sum_exp<Number>({inputs, weight, bias, rows, n_inputs, panels}, sums, threads);               \
  }                                                                                               \
  void amx_sum_max_exp_##format(const Number* inputs, const bf16* weight, const float* bias,      \
                                float* sums, float* maxima, long rows, long n_inputs,             \
                                long panels, long threads) {                                      \
    sum_max_exp<Number>({inputs, weight, bias, rows, n_inputs, panels}, sums, maxima, threads);   \
  }                                                                                               \
  long amx_groups_##format(long n_inputs, long panels) {                                          \
    return Parts<Number>({nullptr, nullptr, nullptr, 1, n_inputs, panels}, 1).groups;             \
  }                                                                                               \
  void amx_dots_##format(const Number* inputs, const Number* weight, const std::int64_t* chosen,  \
                         float* out, long rows, long size, long threads) {                        \
    dots(inputs, weight, chosen, out, rows, size, threads);                                       \
  }                                                                                               \
  void amx_attention_##format(const Number* query, const Number* key_value, Number* out,          \
                              long windows, long queries, long keys, long heads,                  \
                              long head_width, long threads) {                                    \
    attention(query, key_value, out, windows, queries, keys, heads, head_width, threads);         \
  }

extern "C" {

/// Ask the system for the tiles; whether they may be used.
bool amx_allowed() {
  constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

/// The mean (I,) of the `chosen` inputs, and its product with what was rounded off a weight (O, I),
/// in 8 bits with a scale for each output, added to a bias.
void amx_put_back_bfloat16(const bf16* inputs, const std::int64_t* chosen,
                           const std::int8_t* rounded_off_OI, const float* scale_O,
                           const float* bias_O, float* mean_I, float* out_O, long n_chosen,
                           long outputs, long n_inputs, long threads) {
#pragma omp parallel num_threads(threads)
  {
    mean(inputs, chosen, n_chosen, mean_I, n_inputs);
    multiply_small(rounded_off_OI, scale_O, mean_I, bias_O, out_O, outputs, n_inputs);
  }
}

FOR_FORMAT(bf16, bfloat16)
FOR_FORMAT(float, float32)

}  // extern "C"
