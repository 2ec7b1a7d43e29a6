/* SPDX-License-Identifier: Apache-2.0
 *
 * Every place at which GIDD_FAULT can strike, once. GIDD_FAULT is checked against this table, a lint
 * compares it with the calls in src, and tests/resilience/storage/kill_matrix.py walks it.
 *
 *   X(name, GROUP, WHERE, meaning)
 *
 * GROUP  STEP    in the step loop; passed in every step, `eval` and `save` when they are due
 *        COMMIT  while a checkpoint is written, in this order; `step` is the checkpoint's
 *        START   before the first step
 *        SHARD   while shards are made (gidd-shard)
 *        VALUE   a number to spoil, for kinds nan and flip; no kill
 * WHERE  ALL     every rank that trains or writes
 *        FIRST   the coordinator (gidd-shard: rank 0) alone
 *        SOME    whoever has that to do: blocks of several ranks (with comm.zero=on, and there rank 0 if there is one
 *                block a section), a damaged checkpoint
 */
#define GIDD_FAULT_POINTS(X)                                                                                        \
    X(order, STEP, ALL, "an order has arrived")                                                                     \
    X(fetch, STEP, ALL, "before a micro-batch is taken from the loader")                                            \
    X(forward, STEP, ALL, "before forward")                                                                         \
    X(backward, STEP, ALL, "before backward")                                                                       \
    X(reduce, STEP, ALL, "after backward, before waiting for the sums of other ranks")                              \
    X(update, STEP, ALL, "gradients are summed, before the optimizer")                                              \
    X(updated, STEP, ALL, "after the optimizer")                                                                    \
    X(eval, STEP, ALL, "before an evaluation")                                                                      \
    X(save, STEP, ALL, "before the state is copied for a checkpoint")                                               \
    X(report, STEP, ALL, "before the report is sent")                                                               \
    X(log, STEP, FIRST, "before a step's metrics are written")                                                      \
    X(ckpt_create, COMMIT, ALL, "before state.bin is created or opened")                                            \
    X(ckpt_write, COMMIT, ALL, "before each piece of state.bin is written")                                         \
    X(ckpt_sync, COMMIT, ALL, "before state.bin is synced")                                                         \
    X(ckpt_readback, COMMIT, ALL, "before each piece is read back")                                                 \
    X(ckpt_seal, COMMIT, SOME, "before a block of several ranks is read and hashed")                                \
    X(ckpt_gather, COMMIT, ALL, "before the checksums go to the coordinator")                                       \
    X(ckpt_manifest, COMMIT, FIRST, "before manifest.json is written")                                              \
    X(ckpt_sync_tmp, COMMIT, FIRST, "before the temporary directory is synced")                                     \
    X(ckpt_rename, COMMIT, FIRST, "before the directory gets its final name")                                       \
    X(ckpt_fsync_dir, COMMIT, FIRST, "after that, before the name is synced")                                       \
    X(ckpt_prune, COMMIT, FIRST, "before an old or unfinished directory is emptied; at a start too")                \
    X(ckpt_committed, COMMIT, ALL, "the commit is done and known")                                                  \
    X(restore, START, ALL, "before checkpoints are looked for")                                                     \
    X(ckpt_verify, START, ALL, "before each block is verified")                                                     \
    X(ckpt_quarantine, START, SOME, "before a damaged checkpoint is renamed")                                       \
    X(journal_cut, START, FIRST, "before metrics.jsonl is cut to the checkpoint's length")                          \
    X(shard_before_commit, SHARD, ALL, "a shard is laid out, before it is written")                                 \
    X(shard_after_commit, SHARD, ALL, "a shard has its name, before its record")                                    \
    X(shard_after_record, SHARD, ALL, "after a shard's record")                                                     \
    X(shard_before_index, SHARD, FIRST, "all shards are there, before index.json")                                  \
    X(shard_after_index, SHARD, FIRST, "after index.json, before leftovers are swept")                              \
    X(gradient, VALUE, ALL, "the gradient of a step, after backward (nan)")                                         \
    X(parameter, VALUE, ALL, "a parameter of this rank, after backward (nan)")                                      \
    X(loss, VALUE, ALL, "this rank's sum of the loss (nan; flip: a million times too large)")                       \
    X(weight, VALUE, ALL, "a weight of this rank, after the optimizer (flip)")                                      \
    X(build_id, VALUE, ALL, "what this rank says about its program (flip)")
