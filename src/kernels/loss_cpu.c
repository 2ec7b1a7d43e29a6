/* SPDX-License-Identifier: Apache-2.0
 *
 * One row of logits by one thread: the largest logit; e_j = exp(l_j - largest) into the thread's
 * scratch and their sum Z; for GIDD one sweep of statistics; one sweep that writes. Sweeps treat
 * every column alike in fp32 (no branch); the columns of x, z and the mask are then put right in
 * double.
 */
#include "kernels/cpu.h"

#include <float.h>
#include <math.h>

enum {
    BLOCK = 512,      // columns whose logs are taken at once
    LOG_COLUMNS = 32, // factors in [1, 2) multiplied before the exponent is taken out again
    LOG_LANES = BLOCK / LOG_COLUMNS,
};

static const double log_floor = -1e6; // SPEC section 5, step 2
static const double ln2 = 0.69314718055994530942;

size_t gidd_loss_workspace_cpu(int64_t Vr, int threads)
{
    return (size_t)(gidd_scratch_floats(Vr + BLOCK) * threads) * sizeof(float);
}

// ---- softmax without the mask column
// -------------------------------------------------------------

// A row of logits widened, and its softmax: xhat_j = exps[j] / total.
typedef struct softmax {
    float *exps;    // scratch [Vr]; the mask's is 0
    double largest; // the largest logit
    double total;   // Z
} softmax;

static double floored_log(double value)
{
    double result = value <= 0.0 ? log_floor : log(value);
    return result < log_floor ? log_floor : result; // NaN passes both comparisons
}

static void softmax_row(softmax *row, const gidd_loss_args *args, gidd_dtype dtype, int64_t r,
                        float *scratch)
{
    int64_t      mask = args->mask_id, after = args->Vr - mask - 1;
    const float *logits = gidd_elements_in(args->logits, r * args->Vr, args->Vr, dtype, scratch);
    float        largest = gidd_largest(logits, mask, -INFINITY);
    largest = gidd_largest(logits + mask + 1, after, largest);
    row->exps = scratch;
    row->largest = (double)largest;
    row->total = gidd_exp_sum(scratch, logits, mask, largest);
    scratch[mask] = 0.0f;
    row->total += gidd_exp_sum(scratch + mask + 1, logits + mask + 1, after, largest);
}

static double log_xhat(const softmax *row, double logit)
{
    return logit - row->largest - log(row->total);
}

// Logit of one column, read before the row is overwritten.
static double logit_at(const gidd_loss_args *args, gidd_dtype dtype, int64_t r, int64_t column)
{
    float scratch;
    return (double)*gidd_elements_in(args->logits, r * args->Vr + column, 1, dtype, &scratch);
}

// ---- GIDD
// ----------------------------------------------------------------------------------------

typedef enum position_kind { KEPT, MASKED, OTHER } position_kind;

// x is tested first: z = x wins over z = mask.
static position_kind kind_of(int32_t x, int32_t z, int32_t mask_id)
{
    return z == x ? KEPT : z == mask_id ? MASKED : OTHER;
}

static double loss_weight(const gidd_seq_coef *coef, position_kind kind)
{
    return (double)(kind == KEPT ? coef->w_keep : kind == MASKED ? coef->w_mask : coef->w_other);
}

static double elbo_weight(const gidd_seq_coef *coef, position_kind kind)
{
    return (double)(kind == KEPT     ? coef->omega_keep
                    : kind == MASKED ? coef->omega_mask
                                     : coef->omega_other);
}

// Sums over columns of log r and of alpha xhat / r, r = alpha xhat + beta.
typedef struct statistics {
    double log_r, share;
} statistics;

/* Sum of the logs of a block of positive normal numbers without a logarithm a number: the exponents
 * are added as integers, the mantissas multiplied; a product of LOG_COLUMNS mantissas cannot
 * overflow. */
static double block_log_sum(const float *values)
{
    int32_t exponents[LOG_LANES] = {0};
    float   products[LOG_LANES];
    double  sum = 0.0;
    for (int lane = 0; lane < LOG_LANES; lane++) {
        products[lane] = 1.0f;
    }
    for (int64_t first = 0; first < BLOCK; first += LOG_LANES) {
#pragma omp simd
        for (int lane = 0; lane < LOG_LANES; lane++) {
            uint32_t bits, mantissa_bits;
            float    mantissa;
            memcpy(&bits, &values[first + lane], sizeof bits);
            exponents[lane] += (int32_t)(bits >> 23) - 127;
            mantissa_bits = (bits & 0x007fffffu) | 0x3f800000u;
            memcpy(&mantissa, &mantissa_bits, sizeof mantissa);
            products[lane] *= mantissa;
        }
    }
    for (int lane = 0; lane < LOG_LANES; lane++) {
        sum += (double)exponents[lane] * ln2 + log((double)products[lane]);
    }
    return sum;
}

/* Statistics of columns 0..V-1 as if each were ordinary. Blocks end in ones, which add nothing to
 * the logs. Of no meaning where beta is 0: then they count 0 times. */
static statistics ordinary_statistics(const float *exps, int64_t V, float factor, float beta)
{
    statistics all = {0.0, 0.0};
    float      r[BLOCK];
    for (int64_t first = 0; first < V; first += BLOCK) {
        int64_t count = V - first < BLOCK ? V - first : BLOCK;
        float   share = 0.0f;
#pragma omp simd reduction(+ : share)
        for (int64_t j = 0; j < count; j++) {
            float part = factor * exps[first + j];
            r[j] = part + beta;
            share += part / r[j];
        }
        for (int64_t j = count; j < BLOCK; j++) {
            r[j] = 1.0f;
        }
        all.log_r += block_log_sum(r);
        all.share += (double)share;
    }
    return all;
}

// A column whose q or beta is not the ordinary one: x, z, mask; each once.
typedef struct special_column {
    int64_t column;
    double  xhat, q, r, log_q, log_r;
} special_column;

enum { AT_Z = 0, MAX_SPECIAL = 3 }; // z is always the first of them

typedef struct row_state {
    int64_t        r; // row of logits
    int32_t        x, z;
    double         alpha, beta, beta_mask;
    special_column special[MAX_SPECIAL];
    int            special_count;
    double         rho;   // q_z / r_z
    double         inner; // sum_k q_k alpha xhat_k / r_k - (1 - rho) alpha xhat_z / r_z
} row_state;

static void add_special(row_state *row, const gidd_loss_args *args, gidd_dtype dtype,
                        const softmax *soft, int64_t column)
{
    for (int i = 0; i < row->special_count; i++) {
        if (row->special[i].column == column) {
            return;
        }
    }
    int             is_mask = column == args->mask_id;
    double          beta = is_mask ? row->beta_mask : row->beta;
    special_column *made = &row->special[row->special_count++];
    made->column = column;
    made->xhat = is_mask ? 0.0 : exp(log_xhat(soft, logit_at(args, dtype, row->r, column)));
    made->q = (column == row->x ? row->alpha : 0.0) + beta;
    made->r = row->alpha * made->xhat + beta;
    made->log_q = floored_log(made->q);
    made->log_r = floored_log(made->r);
}

// Takes a special column out of the sums over ordinary columns, as the sweep saw it.
static void remove_ordinary(statistics *sums, const softmax *soft, const row_state *row,
                            int64_t column)
{
    double part = row->alpha / soft->total * (double)soft->exps[column];
    sums->log_r -= log(part + row->beta);
    sums->share -= part / (part + row->beta);
}

static double share_of(const row_state *row, const special_column *column)
{
    return column->r > 0.0 ? row->alpha * column->xhat / column->r : 0.0;
}

// KL(q || r), and row->rho, row->inner on the way. SPEC section 5, one-pass form.
static double divergence(row_state *row, const gidd_loss_args *args, const softmax *soft)
{
    statistics sums = ordinary_statistics(soft->exps, args->V, (float)(row->alpha / soft->total),
                                          (float)row->beta);
    double     kl = 0.0, inner = 0.0;
    for (int i = 0; i < row->special_count; i++) {
        const special_column *at = &row->special[i];
        remove_ordinary(&sums, soft, row, at->column);
        if (at->q > 0.0) {
            kl += at->q * (at->log_q - at->log_r);
            inner += at->q * share_of(row, at);
        }
    }
    if (row->beta > 0.0) {
        double ordinary = (double)(args->V - row->special_count);
        kl += row->beta * (ordinary * floored_log(row->beta) - sums.log_r);
        inner += row->beta * sums.share;
    }
    const special_column *z = &row->special[AT_Z];
    row->rho = exp(z->log_q - z->log_r);
    row->inner = inner - (1.0 - row->rho) * share_of(row, z);
    return kl;
}

/* dlogit_j = xhat_j (dp_j - S), S = -g inner, dp_j = g alpha dr_j: for an ordinary column
 * g (xhat_j inner - beta alpha xhat_j / r_j); the second term is absent in columns V..Vr-1. */
static void write_gradient(const row_state *row, const gidd_loss_args *args, gidd_dtype dtype,
                           const softmax *soft, double g)
{
    float *grad = gidd_elements_out(args->logits, row->r * args->Vr, dtype, soft->exps);
    float  share_factor = (float)(row->alpha / soft->total), beta = (float)row->beta;
    float  along = (float)(g * row->inner / soft->total), against = (float)(g * row->beta);
#pragma omp simd
    for (int64_t j = 0; j < args->V; j++) {
        float e = soft->exps[j];
        float part = share_factor * e;
        float sum = part + beta;
        float r = sum > FLT_MIN ? sum : FLT_MIN; // beta may be 0 where xhat underflows
        grad[j] = along * e - against * (part / r);
    }
#pragma omp simd
    for (int64_t j = args->V; j < args->Vr; j++) {
        grad[j] = along * soft->exps[j];
    }
    for (int i = 0; i < row->special_count; i++) {
        const special_column *at = &row->special[i];
        double                pull =
            at->r > 0.0 ? at->q / at->r - (i == AT_Z ? (1.0 - row->rho) / at->r : 0.0) : 0.0;
        grad[at->column] = (float)(g * at->xhat * (row->inner - row->alpha * pull));
    }
    grad[args->mask_id] = 0.0f;
    gidd_elements_store(args->logits, row->r * args->Vr, args->Vr, dtype, grad);
}

static int64_t position_of(const gidd_loss_args *args, int64_t r)
{
    return args->row_list != NULL ? args->row_list[r] : args->first_position + r;
}

static void row_gidd(const gidd_loss_args *args, gidd_dtype dtype, int64_t r, float *scratch)
{
    int64_t              position = position_of(args, r);
    const gidd_seq_coef *coef = &args->coef[position / args->T];
    softmax              soft;
    row_state            row = {.r = r,
                                .x = args->x[position],
                                .z = args->z[position],
                                .alpha = (double)coef->alpha,
                                .beta = (double)coef->beta_other,
                                .beta_mask = (double)coef->beta_mask};
    softmax_row(&soft, args, dtype, r, scratch);
    add_special(&row, args, dtype, &soft, row.z);
    add_special(&row, args, dtype, &soft, row.x);
    add_special(&row, args, dtype, &soft, args->mask_id);
    double                kl = divergence(&row, args, &soft);
    const special_column *z = &row.special[AT_Z];
    double                log_ratio = z->log_q - z->log_r;
    args->terms[position] =
        (gidd_loss_row){.kl = (float)kl,
                        .is = (float)(row.rho - log_ratio - 1.0),
                        .log_ratio = (float)log_ratio,
                        .log_px = (float)log_xhat(&soft, logit_at(args, dtype, r, row.x))};
    if (args->mode == GIDD_LOSS_TRAIN) {
        double weight = loss_weight(coef, kind_of(row.x, row.z, args->mask_id));
        write_gradient(&row, args, dtype, &soft,
                       (double)args->scale * weight * (double)coef->row_weight);
    }
}

// ---- MDLM
// ----------------------------------------------------------------------------------------

// SPEC section 6: dlogit_j = g (xhat_j - [j = x]) at masked positions, else 0.
static void write_gradient_mdlm(const gidd_loss_args *args, gidd_dtype dtype, int64_t r, int32_t x,
                                const softmax *soft, double log_px, double g)
{
    int64_t first = r * args->Vr;
    float  *grad = gidd_elements_out(args->logits, first, dtype, soft->exps);
    float   factor = (float)(g / soft->total);
    if (g == 0.0) {
        memset(grad, 0, (size_t)args->Vr * sizeof *grad);
    } else {
#pragma omp simd
        for (int64_t j = 0; j < args->Vr; j++) {
            grad[j] = factor * soft->exps[j];
        }
        grad[x] = (float)(g * expm1(log_px));
        grad[args->mask_id] = 0.0f;
    }
    gidd_elements_store(args->logits, first, args->Vr, dtype, grad);
}

static void row_mdlm(const gidd_loss_args *args, gidd_dtype dtype, int64_t r, float *scratch)
{
    int64_t              position = position_of(args, r);
    const gidd_seq_coef *coef = &args->coef[position / args->T];
    int32_t              x = args->x[position], z = args->z[position];
    softmax              soft;
    softmax_row(&soft, args, dtype, r, scratch);
    int    masked = kind_of(x, z, args->mask_id) == MASKED;
    double log_px = log_xhat(&soft, logit_at(args, dtype, r, x));
    args->terms[position] =
        (gidd_loss_row){.is = masked ? (float)-log_px : 0.0f, .log_px = (float)log_px};
    if (args->mode == GIDD_LOSS_TRAIN) {
        double weight = masked ? (double)coef->w_mask : 0.0;
        write_gradient_mdlm(args, dtype, r, x, &soft, log_px,
                            (double)args->scale * weight * (double)coef->row_weight);
    }
}

// ---- launchers
// -----------------------------------------------------------------------------------

static void zero_row(const gidd_loss_args *args, gidd_dtype dtype, int64_t r)
{
    size_t bytes = (size_t)args->Vr * gidd_dtype_bytes(dtype);
    if (args->mode == GIDD_LOSS_TRAIN) {
        memset((char *)args->logits + (size_t)r * bytes, 0, bytes);
    }
}

static gidd_status run_rows(gidd_device *device, const gidd_loss_args *args, const char *slot,
                            void (*row_of)(const gidd_loss_args *, gidd_dtype, int64_t, float *))
{
    if (args->rows < 0 || args->T < 1 || args->V < 1 || args->Vr < args->V || args->mask_id < 0 ||
        args->mask_id >= args->V || args->terms == NULL || args->x == NULL || args->z == NULL ||
        args->coef == NULL || (args->logits == NULL && args->rows > 0)) {
        return gidd_fail(GIDD_ERR_ARG, "%s: %lld rows, V %lld, Vr %lld, or a buffer is missing",
                         slot, (long long)args->rows, (long long)args->V, (long long)args->Vr);
    }
    GIDD_TRY(
        gidd_workspace_check(device, gidd_loss_workspace_cpu(args->Vr, device->threads), slot));
    int64_t stride = gidd_scratch_floats(args->Vr + BLOCK);
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t r = 0; r < args->rows; r++) {
        if (position_of(args, r) == GIDD_NO_POSITION) {
            zero_row(args, device->dtype, r);
            continue;
        }
        row_of(args, device->dtype, r, (float *)device->workspace + stride * omp_get_thread_num());
    }
    return GIDD_OK;
}

gidd_status gidd_loss_gidd_cpu(gidd_device *device, const gidd_loss_args *args)
{
    return run_rows(device, args, "loss_gidd", row_gidd);
}

gidd_status gidd_loss_mdlm_cpu(gidd_device *device, const gidd_loss_args *args)
{
    return run_rows(device, args, "loss_mdlm", row_mdlm);
}

// ---- sums
// ----------------------------------------------------------------------------------------

static void add_position(gidd_loss_sums *sums, const gidd_loss_sums_args *args, int64_t p)
{
    const gidd_seq_coef *coef = &args->coef[p / args->T];
    position_kind        kind = kind_of(args->x[p], args->z[p], args->mask_id);
    double               a = args->attention_mask[p] != 0 ? 1.0 : 0.0;
    double               w = loss_weight(coef, kind), omega = elbo_weight(coef, kind);
    sums->positions += 1.0;
    sums->tokens += a;
    sums->w += w * a;
    sums->noised_tokens += kind == KEPT ? 0.0 : a;
    if (kind == KEPT && args->skip_clean) {
        return;
    }
    const gidd_loss_row *row = &args->terms[p];
    double               kl = (double)row->kl, is = (double)row->is;
    sums->loss += w * (kl + is);
    sums->elbo += omega * (kl + is) * a;
    sums->w_kl += w * kl * a;
    sums->w_is += w * is * a;
    if (kind == KEPT) {
        double log_px = (double)row->log_px;
        sums->clean_loss += w * (kl + is);
        sums->clean_elbo += omega * (kl + is) * a;
        sums->min_log_px = log_px < sums->min_log_px ? log_px : sums->min_log_px;
    }
    sums->nonfinite += isfinite(kl) && isfinite(is) ? 0.0 : 1.0;
}

gidd_status gidd_loss_sums_cpu(gidd_device *device, const gidd_loss_sums_args *args)
{
    (void)device;
    if (args->sums == NULL || args->terms == NULL || args->x == NULL || args->z == NULL ||
        args->attention_mask == NULL || args->coef == NULL || args->B < 1 || args->T < 1) {
        return gidd_fail(GIDD_ERR_ARG, "loss_sums: B %lld, T %lld, or a buffer is missing",
                         (long long)args->B, (long long)args->T);
    }
    gidd_loss_sums added = {.min_log_px = HUGE_VAL};
    for (int64_t p = 0; p < args->B * args->T; p++) {
        if (args->coef[p / args->T].row_weight != 0.0f) { // else: pads an evaluation's last batch
            add_position(&added, args, p);
        }
    }
    gidd_loss_sums_add(args->sums, &added);
    return GIDD_OK;
}
