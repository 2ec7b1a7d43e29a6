/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of kernels: every operation that a device must offer, one launcher a slot. Launchers check
 * their arguments (GIDD_ERR_ARG), enqueue on the device's stream and return: they never allocate,
 * synchronise, choose algorithms or read device memory. The CPU's are the specification.
 *
 * Each operation's header says what it computes; x_cpu.c and x_cuda.cu compute it; one case list
 * (tests/kernels/cases.h) drives test, gradient check and benchmark.
 */
#ifndef GIDD_KERNELS_KERNELS_H
#define GIDD_KERNELS_KERNELS_H

#include "kernels/attention.h"
#include "kernels/embed.h"
#include "kernels/linear.h"
#include "kernels/loss.h"
#include "kernels/norm_mod.h"
#include "kernels/rms_norm.h"
#include "kernels/sample.h"
#include "kernels/swiglu.h"
#include "kernels/time_cond.h"
#include "kernels/update.h"

/* X(slot): slot is called with (gidd_device *, const gidd_<arguments>_args *). One list: the table, the
 * devices' tables and the test that walks every slot are all made from it. */
#define GIDD_KERNEL_SLOTS(X)                                                                       \
    X(embed_fwd, embed_fwd)                                                                        \
    X(embed_bwd, embed_bwd)                                                                        \
    X(time_cond_fwd, time_cond_fwd)                                                                \
    X(time_cond_bwd, time_cond_bwd)                                                                \
    X(linear_fwd, linear_fwd)                                                                      \
    X(linear_bwd_data, linear_bwd_data)                                                            \
    X(linear_bwd_weight, linear_bwd_weight)                                                        \
    X(norm_mod_fwd, norm_mod_fwd)                                                                  \
    X(norm_mod_bwd, norm_mod_bwd)                                                                  \
    X(rms_norm_fwd, rms_norm_fwd)                                                                  \
    X(rms_norm_bwd, rms_norm_bwd)                                                                  \
    X(swiglu_fwd, swiglu_fwd)                                                                      \
    X(swiglu_bwd, swiglu_bwd)                                                                      \
    X(attention_fwd, attention_fwd)                                                                \
    X(attention_bwd, attention_bwd)                                                                \
    X(attention_step, attention_step)                                                              \
    X(loss_gidd, loss)                                                                             \
    X(loss_mdlm, loss)                                                                             \
    X(loss_next, loss)                                                                             \
    X(loss_sums, loss_sums)                                                                        \
    X(grad_norm, grad_norm)                                                                        \
    X(grad_norm_finish, grad_norm_finish)                                                          \
    X(adamw, adamw)                                                                                \
    X(ema, ema)                                                                                    \
    X(cast, cast)                                                                                  \
    X(sample_step, sample_step)                                                                    \
    X(correct_step, correct_step)

typedef struct gidd_kernels {
    const char *device; /* "cpu", "emu", "cuda" */
#define GIDD_KERNEL_SLOT(slot, arguments)                                                          \
    gidd_status (*slot)(gidd_device * device, const gidd_##arguments##_args *args);
    GIDD_KERNEL_SLOTS(GIDD_KERNEL_SLOT)
#undef GIDD_KERNEL_SLOT
} gidd_kernels;

#endif
