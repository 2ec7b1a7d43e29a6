/* SPDX-License-Identifier: Apache-2.0
 *
 * One row of logits by one block, in sweeps over pieces of 16 bytes:
 *
 *   1  reads the row, keeps it in shared memory, and finds Z = sum_j exp(l_j - largest) on the way
 *   2  (GIDD) adds up log r_j and alpha xhat_j / r_j over the columns
 *   3  (TRAIN) writes the gradient
 *
 * A piece belongs to the same thread in every sweep, so what is kept needs no barrier, and the
 * order of every sum is fixed by the row's length alone. Pieces that do not fit on chip are read
 * again from memory, with bitwise the same results; a share f of the row on chip makes 3 - 2f reads
 * (MDLM 2 - f). Of 50304 columns bf16 rows fit sm_80 and later, fp32 rows sm_90 and later.
 *
 * The special-function unit would be the limit (16 results a clock against 128 products), so r_j is
 * scaled by a power of two that centres its range, and one logarithm and one reciprocal then serve
 * the product of four columns: 3 exponentials + 1/4 logarithm + 2/4 reciprocals = 3.75 operations a
 * logit in TRAIN, 2.5 in EVALUATE; MDLM 2 and 1. Exponentials are taken again in each sweep:
 * keeping them would take two times the room of a bf16 row.
 *
 * As on the CPU the sweeps treat every column alike in fp32; the columns of x, z and the mask are
 * put right in double, one by each of the first three threads.
 */
#include "kernels/fast_math_cuda.cuh"

#include <cfloat>

enum {
    THREADS = 512,
    WARPS = THREADS / WARP,
    AHEAD = 4, // pieces that a thread asks for before it uses the first; BY_ELEMENT half of them
    GROUP = 4, // columns that share a logarithm and a reciprocal
    PIECE_BYTES = 16,
    STATIC_SHARED = 768, // at most, next to the row
    BLOCK_RESERVE = 1024 // shared memory that CUDA takes for itself with each block
};

// e_j = 2^(l_j log2_e - top); the special columns use this float too, so that they agree.
constexpr float log2_e = 1.44269504f;
constexpr double ln2 = 0.69314718055994530942;
constexpr double log_floor = -1e6; // SPEC section 5, step 2

// ---- a row in pieces -------------------------------------------------------------------------

template <typename E> constexpr int piece_columns = PIECE_BYTES / static_cast<int>(sizeof(E));

enum access_kind {
    BY_PIECE,  // rows begin at 16 bytes and end with a piece: every row of a real model
    BY_ELEMENT // any other row
};

template <typename E, access_kind ACCESS> struct row_view {
    E *logits;
    uint4 *chip; // shared memory: pieces 0..kept-1
    int columns, pieces, kept;
    int mask_piece, mask_in_piece;
};

// The mask column becomes -inf: it can neither be the largest nor weigh anything.
template <typename E> static __device__ __forceinline__ uint4 without_column(uint4 raw, int column)
{
    constexpr int N = piece_columns<E>;
    E v[N];
    memcpy(v, &raw, sizeof raw);
#pragma unroll
    for (int i = 0; i < N; i++) {
        v[i] = i == column ? from_float<E>(-INFINITY) : v[i];
    }
    memcpy(&raw, v, sizeof raw);
    return raw;
}

template <typename E, access_kind ACCESS>
static __device__ __forceinline__ uint4 fetch_piece(const row_view<E, ACCESS> &row, int piece)
{
    constexpr int N = piece_columns<E>;
    uint4 raw;
    if (ACCESS == BY_PIECE) {
        raw = reinterpret_cast<const uint4 *>(row.logits)[piece];
    } else {
        E v[N];
#pragma unroll
        for (int i = 0; i < N; i++) {
            int column = piece * N + i;
            v[i] = column < row.columns ? row.logits[column] : from_float<E>(-INFINITY);
        }
        memcpy(&raw, v, sizeof raw);
    }
    return piece == row.mask_piece ? without_column<E>(raw, row.mask_in_piece) : raw;
}

template <typename E, access_kind ACCESS>
static __device__ __forceinline__ uint4 piece_again(const row_view<E, ACCESS> &row, int piece)
{
    return piece < row.kept ? row.chip[piece] : fetch_piece(row, piece);
}

static __device__ __forceinline__ void unpack(float (&v)[4], uint4 raw)
{
    v[0] = __uint_as_float(raw.x);
    v[1] = __uint_as_float(raw.y);
    v[2] = __uint_as_float(raw.z);
    v[3] = __uint_as_float(raw.w);
}
static __device__ __forceinline__ uint4 pack(const float (&v)[4])
{
    return make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]),
                      __float_as_uint(v[3]));
}
template <typename E, access_kind ACCESS>
static __device__ __forceinline__ void store_piece(const row_view<E, ACCESS> &row, int piece,
                                                   uint4 raw)
{
    constexpr int N = piece_columns<E>;
    if (ACCESS == BY_PIECE) {
        reinterpret_cast<uint4 *>(row.logits)[piece] = raw;
    } else {
        E v[N];
        memcpy(v, &raw, sizeof raw);
#pragma unroll
        for (int i = 0; i < N; i++) {
            if (piece * N + i < row.columns) {
                row.logits[piece * N + i] = v[i];
            }
        }
    }
}

// ---- sweep 1: softmax without the mask column --------------------------------------------------

// xhat_j = e_j / total, e_j = 2^(l_j log2_e - top).
struct softmax {
    float top, total;
};

template <int N>
static __device__ __forceinline__ void exponentials(float (&e)[N], uint4 raw, float top)
{
    unpack(e, raw);
#pragma unroll
    for (int i = 0; i < N; i++) {
        e[i] = approx_exp2(fmaf(e[i], log2_e, -top));
    }
}

// A thread's own softmax goes on with a piece; its sum is scaled anew when a larger logit comes.
template <typename E> static __device__ __forceinline__ void add_piece(softmax *own, uint4 raw)
{
    constexpr int N = piece_columns<E>;
    float v[N];
    unpack(v, raw);
    float largest = v[0];
#pragma unroll
    for (int i = 1; i < N; i++) {
        largest = fmaxf(largest, v[i]);
    }
    float top = largest * log2_e;
    if (top > own->top) {
        own->total *= approx_exp2(own->top - top);
        own->top = top;
    }
    exponentials<N>(v, raw, own->top);
#pragma unroll
    for (int step = 1; step < N; step *= 2) {
#pragma unroll
        for (int i = 0; i < N; i += 2 * step) {
            v[i] += v[i + step];
        }
    }
    own->total += v[0];
}

template <typename E, access_kind ACCESS>
static __device__ __forceinline__ softmax read_row(const row_view<E, ACCESS> &row, float *tops,
                                                   float *totals)
{
    constexpr int COUNT = ACCESS == BY_PIECE ? AHEAD : AHEAD / 2; // of four, fp32 would spill
    softmax own = {-FLT_MAX, 0.0f}; // not -inf, which less itself is NaN
    for (int first = static_cast<int>(threadIdx.x); first < row.pieces; first += COUNT * THREADS) {
        uint4 raw[COUNT];
#pragma unroll
        for (int a = 0; a < COUNT; a++) { // behind the row's end: the last piece, not used
            raw[a] = fetch_piece(row, min(first + a * THREADS, row.pieces - 1));
        }
#pragma unroll
        for (int a = 0; a < COUNT; a++) {
            int piece = first + a * THREADS;
            if (piece < row.kept) {
                row.chip[piece] = raw[a];
            }
            if (piece < row.pieces) {
                add_piece<E>(&own, raw[a]);
            }
        }
    }
    softmax all;
    all.top = block_max<WARPS>(own.top, tops);
    all.total = block_sum<WARPS>(own.total * approx_exp2(own.top - all.top), totals);
    return all;
}

// ---- sweep 2: statistics -----------------------------------------------------------------------

/* r_j = alpha xhat_j + beta of an ordinary column, times `scale`. Its range, [beta, 1], is centred
 * so that a product of GROUP of them neither overflows nor underflows; `narrow` says that beta is
 * too small for that (or 0), and every column goes alone, unscaled. */
struct ordinary {
    float factor; // scale alpha / Z
    float beta;   // scale beta
    int scale_log2;
    bool narrow;
    int columns; // V: the columns behind have no beta
};

static __device__ __forceinline__ ordinary make_ordinary(float alpha, float beta, float total,
                                                         int columns)
{
    ordinary made;
    int exponent = static_cast<int>(__float_as_uint(beta) >> 23) - 127;
    made.narrow = !(beta >= 0x1p-60f);
    made.scale_log2 = made.narrow || exponent > 0 ? 0 : -exponent / 2;
    float scale = __uint_as_float(static_cast<unsigned>(127 + made.scale_log2) << 23);
    made.factor = scale * (alpha / total);
    made.beta = scale * beta;
    made.columns = columns;
    return made;
}

// part = alpha xhat and r of a piece, both scaled; behind column V they are 0 and 1.
template <int N>
static __device__ __forceinline__ void ratios(float (&part)[N], float (&r)[N], const float (&e)[N],
                                              const ordinary &all, int piece)
{
#pragma unroll
    for (int i = 0; i < N; i++) {
        part[i] = all.factor * e[i];
        r[i] = fmaf(all.factor, e[i], all.beta);
    }
    int count = all.columns - piece * N;
    if (count < N) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            part[i] = i < count ? part[i] : 0.0f;
            r[i] = i < count ? r[i] : 1.0f;
        }
    }
    if (all.narrow) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            r[i] = fmaxf(r[i], FLT_MIN); // beta may be 0 where xhat underflows
        }
    }
}

struct statistics {
    float log2_r, share;
};

template <int N>
static __device__ __forceinline__ void add_statistics(statistics *sums, const float (&part)[N],
                                                      const float (&r)[N], bool narrow)
{
    if (narrow) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            sums->share += part[i] * approx_reciprocal(r[i]);
            sums->log2_r += approx_log2(r[i]);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < N; i += GROUP) {
        float low = r[i] * r[i + 1], high = r[i + 2] * r[i + 3], product = low * high;
        float of_low = fmaf(part[i], r[i + 1], part[i + 1] * r[i]);
        float of_high = fmaf(part[i + 2], r[i + 3], part[i + 3] * r[i + 2]);
        float sum = fmaf(of_low, high, of_high * low);
        sums->share = fmaf(sum, approx_reciprocal(product), sums->share);
        sums->log2_r += approx_log2(product);
    }
}

// Of every column below V as if it were ordinary; this thread's pieces.
template <typename E, access_kind ACCESS>
static __device__ __forceinline__ statistics own_statistics(const row_view<E, ACCESS> &row,
                                                            const ordinary &all, float top)
{
    constexpr int N = piece_columns<E>;
    statistics sums = {0.0f, 0.0f};
    int ordinary_pieces = (all.columns + N - 1) / N;
#pragma unroll 2
    for (int piece = static_cast<int>(threadIdx.x); piece < ordinary_pieces; piece += THREADS) {
        float e[N], part[N], r[N];
        exponentials<N>(e, piece_again(row, piece), top);
        ratios<N>(part, r, e, all, piece);
        add_statistics<N>(&sums, part, r, all.narrow);
    }
    return sums;
}

// ---- special columns ---------------------------------------------------------------------------

enum { AT_Z, AT_X, AT_MASK, SPECIALS };

// A column whose q or beta is not the ordinary one.
struct special_column {
    double xhat, q, r, log_ratio, share; // log q - log r; alpha xhat / r
    double log_px;                       // log xhat, of the mask too
    double plain_log;                    // what the sweep over all columns added to the logs
    int column;
    bool counts; // false: the same column stands before it
};

struct row_constants {
    int32_t x, z, mask;
    float alpha, beta, beta_mask;
};

static __device__ __forceinline__ double floored_log(double value)
{
    double result = value <= 0.0 ? log_floor : log(value);
    return result < log_floor ? log_floor : result; // NaN passes both comparisons
}

static __device__ special_column make_special(int which, const row_constants &row,
                                              const softmax &soft, float logit)
{
    special_column made;
    made.column = which == AT_Z ? row.z : which == AT_X ? row.x : row.mask;
    made.counts = which == AT_Z || (made.column != row.z && (which == AT_X || row.mask != row.x));
    bool is_mask = made.column == row.mask;
    double alpha = static_cast<double>(row.alpha), plain_beta = static_cast<double>(row.beta);
    double beta = is_mask ? static_cast<double>(row.beta_mask) : plain_beta;
    double total = static_cast<double>(soft.total);
    double power =
        static_cast<double>(logit) * static_cast<double>(log2_e) - static_cast<double>(soft.top);
    made.xhat = is_mask ? 0.0 : exp2(power) / total;
    made.q = (made.column == row.x ? alpha : 0.0) + beta;
    made.r = alpha * made.xhat + beta;
    double log_r = floored_log(made.r);
    made.log_ratio = floored_log(made.q) - log_r;
    made.share = made.r > 0.0 ? alpha * made.xhat / made.r : 0.0;
    made.log_px = power * ln2 - log(total);
    made.plain_log = is_mask ? floored_log(plain_beta) : log_r;
    return made;
}

// q_z / r_z
static __device__ __forceinline__ double rho_of(const special_column &z)
{
    return z.r > 0.0 ? z.q / z.r : exp(z.log_ratio);
}

// ---- GIDD --------------------------------------------------------------------------------------

struct gidd_shared {
    float tops[WARPS], totals[WARPS], log2_r[WARPS], share[WARPS];
    special_column special[SPECIALS];
    double inner; // sum_k q_k alpha xhat_k / r_k - (1 - rho) alpha xhat_z / r_z
};
static_assert(sizeof(gidd_shared) <= STATIC_SHARED, "or the largest rows would not fit any more");

// x is tested first: z = x wins over z = mask.
static __device__ __forceinline__ float loss_weight(const gidd_seq_coef *coef, int32_t x, int32_t z,
                                                    int32_t mask)
{
    return z == x ? coef->w_keep : z == mask ? coef->w_mask : coef->w_other;
}

static __device__ __forceinline__ int64_t position_of(const gidd_loss_args &args, int64_t r)
{
    return args.row_list != nullptr ? args.row_list[r] : args.first_position + r;
}

// A row beyond the list: no terms, and in training no gradient.
template <typename E>
static __device__ __forceinline__ void zero_row(const gidd_loss_args &args, int64_t r)
{
    E *logits = static_cast<E *>(args.logits) + r * args.Vr;
    for (int64_t i = threadIdx.x; i < args.Vr && args.mode == GIDD_LOSS_TRAIN; i += THREADS) {
        logits[i] = from_float<E>(0.0f);
    }
}

template <typename E, access_kind ACCESS>
static __device__ __forceinline__ row_view<E, ACCESS> view_of(const gidd_loss_args &args, int64_t r,
                                                              uint4 *chip, int kept)
{
    constexpr int N = piece_columns<E>;
    row_view<E, ACCESS> row;
    row.logits = static_cast<E *>(args.logits) + r * args.Vr;
    row.chip = chip;
    row.columns = static_cast<int>(args.Vr);
    row.pieces = (row.columns + N - 1) / N;
    row.kept = kept;
    row.mask_piece = args.mask_id / N;
    row.mask_in_piece = args.mask_id % N;
    return row;
}

/* KL(q || r) from the sums over all columns, by one thread; leaves shared->inner. SPEC section 5,
 * one-pass form. */
static __device__ gidd_loss_row divergence(gidd_shared *shared, const row_constants &row,
                                           const ordinary &all)
{
    double log2_r = 0.0, share = 0.0, kl = 0.0, inner = 0.0;
    double beta = static_cast<double>(row.beta), count = static_cast<double>(all.columns);
    for (int w = 0; w < WARPS; w++) {
        log2_r += static_cast<double>(shared->log2_r[w]);
        share += static_cast<double>(shared->share[w]);
    }
    double log_r = ln2 * (log2_r - count * static_cast<double>(all.scale_log2));
    for (int i = 0; i < SPECIALS; i++) {
        const special_column &at = shared->special[i];
        if (at.counts) {
            kl += at.q > 0.0 ? at.q * at.log_ratio : 0.0;
            inner += at.q * at.share;
            log_r -= at.plain_log;
            share -= at.column == row.mask ? 0.0 : at.share;
            count -= 1.0;
        }
    }
    if (beta > 0.0) {
        kl += beta * (count * floored_log(beta) - log_r);
        inner += beta * share;
    }
    const special_column &z = shared->special[AT_Z], &x = shared->special[AT_X];
    double rho = rho_of(z);
    shared->inner = inner - (1.0 - rho) * z.share;
    gidd_loss_row terms;
    terms.kl = static_cast<float>(kl);
    terms.is = static_cast<float>(rho - z.log_ratio - 1.0);
    terms.log_ratio = static_cast<float>(z.log_ratio);
    terms.log_px = static_cast<float>(x.log_px);
    return terms;
}

// part / r of a piece.
template <int N>
static __device__ __forceinline__ void quotients(float (&q)[N], const float (&part)[N],
                                                 const float (&r)[N], bool narrow)
{
    if (narrow) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            q[i] = part[i] * approx_reciprocal(r[i]);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < N; i += GROUP) {
        float low = r[i] * r[i + 1], high = r[i + 2] * r[i + 3];
        float inverse = approx_reciprocal(low * high);
        float by_low = high * inverse, by_high = low * inverse;
        q[i] = part[i] * (r[i + 1] * by_low);
        q[i + 1] = part[i + 1] * (r[i] * by_low);
        q[i + 2] = part[i + 2] * (r[i + 3] * by_high);
        q[i + 3] = part[i + 3] * (r[i + 2] * by_high);
    }
}

/* Sweep 3. dlogit_j = xhat_j (dp_j - S), S = -g inner, dp_j = g alpha dr_j: for an ordinary column
 * g (xhat_j inner - beta alpha xhat_j / r_j); the second term is absent in columns V..Vr-1. */
template <typename E, access_kind ACCESS>
static __device__ __forceinline__ void write_gradient(const row_view<E, ACCESS> &row,
                                                      const ordinary &all, float top, float along,
                                                      float against)
{
    constexpr int N = piece_columns<E>;
#pragma unroll 2
    for (int piece = static_cast<int>(threadIdx.x); piece < row.pieces; piece += THREADS) {
        float e[N], part[N], r[N], q[N];
        exponentials<N>(e, piece_again(row, piece), top);
        ratios<N>(part, r, e, all, piece);
        quotients<N>(q, part, r, all.narrow);
#pragma unroll
        for (int i = 0; i < N; i++) {
            e[i] = fmaf(along, e[i], -against * q[i]);
        }
        store_piece(row, piece, pack(e));
    }
}

static __device__ __forceinline__ float special_gradient(const gidd_shared *shared, int which,
                                                         const row_constants &row, double g)
{
    const special_column &at = shared->special[which];
    if (at.column == row.mask || !(at.r > 0.0)) {
        return at.column == row.mask ? 0.0f : static_cast<float>(g * at.xhat * shared->inner);
    }
    double slope = which == AT_Z ? at.q - (1.0 - rho_of(at)) : at.q;
    return static_cast<float>(g * at.xhat *
                              (shared->inner - static_cast<double>(row.alpha) * slope / at.r));
}

template <typename E, access_kind ACCESS>
static __global__ void __launch_bounds__(THREADS, 2) loss_gidd_kernel(gidd_loss_args args, int kept)
{
    GIDD_DYNAMIC_SHARED(uint4, chip);
    __shared__ gidd_shared shared;
    int thread = static_cast<int>(threadIdx.x);
    int64_t r = blockIdx.x, position = position_of(args, r);
    if (position == GIDD_NO_POSITION) {
        zero_row<E>(args, r);
        return;
    }
    const gidd_seq_coef *coef = &args.coef[position / args.T];
    row_constants row = {args.x[position], args.z[position], args.mask_id,
                         coef->alpha,      coef->beta_other, coef->beta_mask};
    row_view<E, ACCESS> view = view_of<E, ACCESS>(args, r, chip, kept);
    float logit = 0.0f; // of a special column, before it is overwritten
    if (thread < SPECIALS) {
        logit = to_float(view.logits[thread == AT_Z ? row.z : thread == AT_X ? row.x : row.mask]);
    }
    softmax soft = read_row(view, shared.tops, shared.totals);
    ordinary all = make_ordinary(row.alpha, row.beta, soft.total, static_cast<int>(args.V));
    if (thread < SPECIALS) {
        shared.special[thread] = make_special(thread, row, soft, logit);
    }
    statistics sums = own_statistics(view, all, soft.top);
    sums.log2_r = warp_sum(sums.log2_r);
    sums.share = warp_sum(sums.share);
    if (lane_number() == 0) {
        shared.log2_r[warp_number()] = sums.log2_r;
        shared.share[warp_number()] = sums.share;
    }
    __syncthreads();
    if (thread == 0) {
        args.terms[position] = divergence(&shared, row, all);
    }
    if (args.mode == GIDD_LOSS_TRAIN) {
        __syncthreads(); // for shared.inner
        float g = args.scale * loss_weight(coef, row.x, row.z, row.mask) * coef->row_weight;
        float along = g * static_cast<float>(shared.inner) / soft.total;
        write_gradient(view, all, soft.top, along, g * row.beta);
        __syncthreads(); // the special columns have been written as ordinary ones
        if (thread < SPECIALS && shared.special[thread].counts) {
            view.logits[shared.special[thread].column] =
                from_float<E>(special_gradient(&shared, thread, row, static_cast<double>(g)));
        }
    }
}

// ---- MDLM --------------------------------------------------------------------------------------

// SPEC section 6: dlogit_j = g (xhat_j - [j = x]) at masked positions, else 0.
template <typename E, access_kind ACCESS>
static __device__ __forceinline__ void write_gradient_mdlm(const row_view<E, ACCESS> &row,
                                                           float top, float factor)
{
    constexpr int N = piece_columns<E>;
#pragma unroll 2
    for (int piece = static_cast<int>(threadIdx.x); piece < row.pieces; piece += THREADS) {
        float e[N] = {};
        if (factor != 0.0f) {
            exponentials<N>(e, piece_again(row, piece), top);
#pragma unroll
            for (int i = 0; i < N; i++) {
                e[i] *= factor;
            }
        }
        store_piece(row, piece, pack(e));
    }
}

template <typename E, access_kind ACCESS>
static __global__ void __launch_bounds__(THREADS, 2) loss_mdlm_kernel(gidd_loss_args args, int kept)
{
    GIDD_DYNAMIC_SHARED(uint4, chip);
    __shared__ float tops[WARPS], totals[WARPS];
    int thread = static_cast<int>(threadIdx.x);
    int64_t r = blockIdx.x, position = position_of(args, r);
    if (position == GIDD_NO_POSITION) {
        zero_row<E>(args, r);
        return;
    }
    const gidd_seq_coef *coef = &args.coef[position / args.T];
    int32_t x = args.x[position], z = args.z[position];
    bool masked = z != x && z == args.mask_id;
    row_view<E, ACCESS> view = view_of<E, ACCESS>(args, r, chip, kept);
    float logit = to_float(view.logits[x]);
    softmax soft = read_row(view, tops, totals);
    double log_px = 0.0;
    if (thread == 0) {
        double power = static_cast<double>(logit) * static_cast<double>(log2_e) -
                       static_cast<double>(soft.top);
        log_px = power * ln2 - log(static_cast<double>(soft.total));
        gidd_loss_row terms = {0.0f, masked ? static_cast<float>(-log_px) : 0.0f, 0.0f,
                               static_cast<float>(log_px)};
        args.terms[position] = terms;
    }
    if (args.mode == GIDD_LOSS_TRAIN) {
        float g = masked ? args.scale * coef->w_mask * coef->row_weight : 0.0f;
        write_gradient_mdlm(view, soft.top, g / soft.total);
        __syncthreads(); // the column of x has been written as an ordinary one
        if (thread == 0 && g != 0.0f) {
            view.logits[x] =
                from_float<E>(static_cast<float>(static_cast<double>(g) * expm1(log_px)));
        }
    }
}

// ---- launchers ---------------------------------------------------------------------------------

/* Pieces of a row that stay on chip: all where they fit; else as many as leave room for a second
 * block on the multiprocessor. */
static int pieces_kept(const gidd_device *device, int64_t pieces)
{
    int64_t limit = static_cast<int64_t>(launch_target(device)->shared_bytes);
    int64_t whole = limit - STATIC_SHARED, half = (limit - BLOCK_RESERVE) / 2 - STATIC_SHARED;
    int64_t kept = pieces * PIECE_BYTES <= whole ? pieces : half / PIECE_BYTES;
    return static_cast<int>(kept < 0 ? 0 : kept);
}

typedef void (*loss_kernel)(gidd_loss_args, int);

template <typename E>
static gidd_status run_rows(gidd_device *device, const gidd_loss_args *args, const char *slot,
                            loss_kernel by_piece, loss_kernel by_element)
{
    constexpr int64_t N = piece_columns<E>;
    bool whole = args->Vr % N == 0 && is_aligned(args->logits, PIECE_BYTES);
    int kept = pieces_kept(device, (args->Vr + N - 1) / N);
    if (args->rows == 0) {
        return GIDD_OK;
    }
    return launch(device, slot, whole ? by_piece : by_element,
                  dim3(static_cast<unsigned>(args->rows)), dim3(THREADS),
                  static_cast<size_t>(kept) * PIECE_BYTES, *args, kept);
}

static gidd_status check_args(const gidd_loss_args *args, const char *slot)
{
    if (args->rows < 0 || args->rows > INT32_MAX || args->T < 1 || args->V < 1 ||
        args->Vr < args->V || args->Vr > INT32_MAX / 2 || args->mask_id < 0 ||
        args->mask_id >= args->V || args->terms == nullptr || args->x == nullptr ||
        args->z == nullptr || args->coef == nullptr ||
        (args->logits == nullptr && args->rows > 0)) {
        return gidd_fail(GIDD_ERR_ARG, "%s: %lld rows, V %lld, Vr %lld, or a buffer is missing",
                         slot, static_cast<long long>(args->rows), static_cast<long long>(args->V),
                         static_cast<long long>(args->Vr));
    }
    return GIDD_OK;
}

GIDD_LAUNCHER(loss_gidd)(gidd_device *device, const gidd_loss_args *args)
{
    GIDD_TRY(check_args(args, "loss_gidd"));
    return device->dtype == GIDD_BF16
               ? run_rows<bf16>(device, args, "loss_gidd", loss_gidd_kernel<bf16, BY_PIECE>,
                                loss_gidd_kernel<bf16, BY_ELEMENT>)
               : run_rows<float>(device, args, "loss_gidd", loss_gidd_kernel<float, BY_PIECE>,
                                 loss_gidd_kernel<float, BY_ELEMENT>);
}

GIDD_LAUNCHER(loss_mdlm)(gidd_device *device, const gidd_loss_args *args)
{
    GIDD_TRY(check_args(args, "loss_mdlm"));
    return device->dtype == GIDD_BF16
               ? run_rows<bf16>(device, args, "loss_mdlm", loss_mdlm_kernel<bf16, BY_PIECE>,
                                loss_mdlm_kernel<bf16, BY_ELEMENT>)
               : run_rows<float>(device, args, "loss_mdlm", loss_mdlm_kernel<float, BY_PIECE>,
                                 loss_mdlm_kernel<float, BY_ELEMENT>);
}

GIDD_WORKSPACE(loss)(const gidd_device_limits *limits)
{
    (void)limits;
    return 0;
}
