/* SPDX-License-Identifier: Apache-2.0
 *
 * Every configuration key, once. The struct, the parser, range checks, --help, config.yaml and the classes of
 * a changed value on resume are all made from this table.
 *
 *   X(section, key, TYPE, default, lowest, highest, names, CLASS, help)
 *
 * TYPE   INT int64_t | REAL double | TEXT char[] | LIST char[] (a YAML sequence, or comma separated)
 *        | ENUM int (index into `names`, separated by '|')
 * CLASS  IDENTITY  another value is another run: a resume refuses it
 *        SEMANTIC  changes what is computed: a resume needs --allow-change section.key
 *        FREE      how fast, how often, how much is said
 */
#define GIDD_CONFIG_KEYS_run(X)                                                                                     \
    X(run, dir, TEXT, "runs/default", 0, 0, NULL, FREE, "run directory: checkpoints, metrics, samples")             \
    X(run, seed, INT, "1", 0, 9007199254740991.0, NULL, IDENTITY, "seed of everything random")                      \
    X(run, max_minutes, REAL, "0", 0, 1e7, NULL, FREE, "stop with a checkpoint (exit 75) after this many minutes; 0: no limit") \
    X(run, end_time, INT, "0", 0, 9007199254740991.0, NULL, FREE, "end of the job in seconds since 1970, as the job script passes it; 0: unknown") \
    X(run, startup_limit_s, REAL, "900", 1, 1e6, NULL, FREE, "watchdog: longest start-up, in seconds")              \
    X(run, step_limit_s, REAL, "0", 0, 1e6, NULL, FREE, "watchdog: longest step; 0: max(60 s, 5 x median step)")    \
    X(run, eval_limit_s, REAL, "3600", 1, 1e6, NULL, FREE, "watchdog: longest evaluation")                          \
    X(run, checkpoint_limit_s, REAL, "1800", 1, 1e6, NULL, FREE, "watchdog: longest checkpoint")

#define GIDD_CONFIG_KEYS_data(X)                                                                                    \
    X(data, dir, TEXT, "data/owt", 0, 0, NULL, FREE, "folder of the shards (index.json); its digest is part of the run's identity") \
    X(data, source, LIST, "", 0, 0, NULL, FREE, "corpus to shard when data.dir has none: folders, .txt, .jsonl, archives") \
    X(data, mix, LIST, "", 0, 0, NULL, FREE, "several folders of shards with weights, FOLDER:WEIGHT, in place of data.dir; identity like its digest") \
    X(data, window, ENUM, "document", 0, 0, "document|padded|packed", IDENTITY, "rows: one window a document and epoch | documents cut into rows | documents run together") \
    X(data, tokenizer, TEXT, "data/tokenizer", 0, 0, NULL, FREE, "folder of vocab.bpe and encoder.json")            \
    X(data, suffixes, LIST, "txt,md,rst", 0, 0, NULL, FREE, "file name endings taken from folders and archives")    \
    X(data, json_key, TEXT, "text", 0, 0, NULL, FREE, "key of the text in .jsonl inputs")                           \
    X(data, valid_documents, INT, "100000", 1, 1e12, NULL, IDENTITY, "the last so many documents are the validation split") \
    X(data, max_add_padding, INT, "0", 0, 65536, NULL, SEMANTIC, "largest padding that a window of a long document may end with (data.window: document)") \
    X(data, verify, ENUM, "auto", 0, 0, "auto|always|never", FREE, "before step 1 all shards are read and compared with their digests, shared out over the ranks; auto: once a run directory, and again when a file was touched") \
    X(data, on_bad_chunk, ENUM, "stop", 0, 0, "stop|skip", SEMANTIC, "a damaged chunk of ids: end before step 1 (exit 65), or leave out the documents in it, counted and the same on all ranks; skip verifies at every start")

#define GIDD_CONFIG_KEYS_model(X)                                                                                   \
    X(model, type, ENUM, "diffusion", 0, 0, "diffusion|autoregressive", IDENTITY, "diffusion: DiT; autoregressive: the Llama-style baseline, without noise") \
    X(model, hidden_size, INT, "768", 8, 65536, NULL, IDENTITY, "D: width of the residual stream, a multiple of 8") \
    X(model, blocks, INT, "12", 1, 1024, NULL, IDENTITY, "L: transformer blocks")                                   \
    X(model, heads, INT, "12", 1, 1024, NULL, IDENTITY, "H: attention heads; hidden_size / heads is even, at most 128") \
    X(model, cond_size, INT, "128", 1, 4096, NULL, IDENTITY, "C: width of the time conditioning (diffusion)")                   \
    X(model, context, INT, "512", 2, 65536, NULL, IDENTITY, "T: tokens of a sequence")                              \
    X(model, pad, ENUM, "own", 0, 0, "own|eos", IDENTITY, "id of PAD: one of its own before MASK, or EOS's, as in models published with 50258 ids") \
    X(model, init_from, TEXT, "", 0, 0, NULL, IDENTITY, "start from this model: run or step directory, .safetensors file or its folder; empty: random") \
    X(model, p_uniform, REAL, "0.0", 0, 0.99, NULL, SEMANTIC, "p_u: share of uniform noise at t = 1/2; 0: masks only")

#define GIDD_CONFIG_KEYS_diffusion(X)                                                                               \
    X(diffusion, process, ENUM, "gidd", 0, 0, "gidd|mdlm", SEMANTIC, "noising process, loss and sampler")           \
    X(diffusion, t_eps, REAL, "1e-4", 1e-9, 0.1, NULL, SEMANTIC, "times lie in [t_eps, 1 - t_eps]")

#define GIDD_CONFIG_KEYS_loss(X)                                                                                    \
    X(loss, weighting, ENUM, "dynamic", 0, 0, "none|clip|dynamic", SEMANTIC, "loss weights (GIDD)")                 \
    X(loss, min_weight, REAL, "0.0", 0, 1e30, NULL, SEMANTIC, "lower bound of clip and dynamic weights")            \
    X(loss, max_weight, REAL, "2.0", 0, 1e30, NULL, SEMANTIC, "upper bound of clip and dynamic weights")            \
    X(loss, skip_clean_rows, ENUM, "auto", 0, 0, "auto|on|off", SEMANTIC, "leave rows with z = x out of head and loss; auto: with MDLM, whose weight for them is 0, and with GIDD at p_uniform 0 until an evaluation finds over 1e-4 of the loss in them")

#define GIDD_CONFIG_KEYS_optimizer(X)                                                                               \
    X(optimizer, lr, REAL, "5e-4", 0, 10, NULL, SEMANTIC, "highest learning rate")                                  \
    X(optimizer, beta1, REAL, "0.9", 0, 0.999999, NULL, SEMANTIC, "AdamW: decay of the first moment")               \
    X(optimizer, beta2, REAL, "0.99", 0, 0.999999, NULL, SEMANTIC, "AdamW: decay of the second moment")             \
    X(optimizer, epsilon, REAL, "1e-9", 1e-30, 1, NULL, SEMANTIC, "AdamW: epsilon")                                 \
    X(optimizer, weight_decay, REAL, "0.02", 0, 10, NULL, SEMANTIC, "AdamW: decay of every parameter")              \
    X(optimizer, clip, REAL, "1.0", 0, 1e30, NULL, SEMANTIC, "largest L2 norm of the gradient; 0: no clipping")     \
    X(optimizer, ema_decay, REAL, "0", 0, 0.9999999, NULL, SEMANTIC, "decay of a running average of the parameters, for --ema of the tools; 0: none") \
    X(optimizer, schedule, ENUM, "cosine", 0, 0, "cosine|linear|constant", SEMANTIC, "learning-rate schedule")      \
    X(optimizer, warmup_steps, INT, "10000", 0, 1e12, NULL, SEMANTIC, "steps of linear warm-up (cosine, linear)")

#define GIDD_CONFIG_KEYS_training(X)                                                                                \
    X(training, steps, INT, "500000", 1, 1e12, NULL, SEMANTIC, "steps of the whole run; the schedule's length")     \
    X(training, global_batch, INT, "512", 1, 1048576, NULL, IDENTITY, "G: sequences of a step, over all ranks")     \
    X(training, micro_batch, INT, "0", 0, 65536, NULL, FREE, "sequences a rank works on at once; 0: chosen (at most 64)") \
    X(training, recompute, ENUM, "none", 0, 0, "none|mlp|block", FREE, "what backward computes again instead of keeping it, the same bits: 10/18 or 16/18 of the blocks' activations for 1/9 or 2/9 more work in blocks") \
    X(training, precision, ENUM, "bf16", 0, 0, "fp32|bf16", SEMANTIC, "type of activations and of matrix products; masters stay fp32") \
    X(training, max_skipped_steps, INT, "10", 0, 1e6, NULL, FREE, "steps left out in a row (non-finite gradient, spike) before the run ends (exit 65)") \
    X(training, spike_policy, ENUM, "off", 0, 0, "off|skip|rollback|stop", SEMANTIC, "step whose loss is a spike or not finite: leave it out; go back to the last checkpoint (exit 76) and leave it out then; end the run (exit 65)") \
    X(training, spike_z, REAL, "8", 1, 1e6, NULL, SEMANTIC, "a spike lies so many deviations above the mean loss") \
    X(training, spike_window, INT, "100", 2, 1e6, NULL, SEMANTIC, "steps that mean and deviation of the loss look back")

#define GIDD_CONFIG_KEYS_checkpoint(X)                                                                              \
    X(checkpoint, every_steps, INT, "2000", 0, 1e12, NULL, FREE, "steps between checkpoints; 0: none by steps")     \
    X(checkpoint, every_minutes, REAL, "0", 0, 1e7, NULL, FREE, "minutes between checkpoints; 0: none by time")     \
    X(checkpoint, keep_last, INT, "3", 1, 1e6, NULL, FREE, "newest checkpoints kept")                               \
    X(checkpoint, keep_every, INT, "0", 0, 1e12, NULL, FREE, "checkpoints of steps divisible by this are kept for ever; 0: none") \
    X(checkpoint, verify_after_write, ENUM, "on", 0, 0, "off|on", FREE, "read back and compare before a checkpoint counts")

#define GIDD_CONFIG_KEYS_eval(X)                                                                                    \
    X(eval, every_steps, INT, "2000", 0, 1e12, NULL, FREE, "steps between evaluations; 0: none")                    \
    X(eval, documents, INT, "1024", 1, 1e12, NULL, FREE, "validation documents of an evaluation while training")    \
    X(eval, draws, INT, "1", 1, 1e6, NULL, FREE, "noise draws of a document")                                       \
    X(eval, seed, INT, "1", 0, 9007199254740991.0, NULL, FREE, "seed of evaluation noise")

#define GIDD_CONFIG_KEYS_device(X)                                                                                  \
    X(device, kind, TEXT, "auto", 0, 0, NULL, FREE, "cpu, emu, cuda, or auto: cuda where there is one, else cpu")   \
    X(device, graphs, ENUM, "auto", 0, 0, "auto|on|off", FREE, "launch a step as recorded segments; auto: on cuda; off: launch by launch, for debugging") \
    X(device, threads, INT, "0", 0, 4096, NULL, FREE, "host threads of a rank; 0: its share of the processors it may use")

#define GIDD_CONFIG_KEYS_comm(X)                                                                                    \
    X(comm, backend, ENUM, "auto", 0, 0, "auto|mpi|nccl", FREE, "gradient reduction: nccl for one rank per GPU, else mpi") \
    X(comm, zero, ENUM, "off", 0, 0, "off|on", FREE, "ZeRO-1: each rank keeps and updates its share of masters and moments; the same bits") \
    X(comm, deterministic, ENUM, "on", 0, 0, "off|on", FREE, "NCCL: one algorithm, protocol and number of channels; off: whatever it finds fastest") \
    X(comm, bucket_mib, REAL, "64", 0.001, 65536, NULL, FREE, "gradients reduced at once, in MiB of fp32") \
    X(comm, check_replicas_every, INT, "1000", 0, 1e12, NULL, FREE, "steps between comparisons of the ranks' weights (exit 65 when they differ); 0: none")

#define GIDD_CONFIG_KEYS_log(X)                                                                                     \
    X(log, every_steps, INT, "10", 1, 1e9, NULL, FREE, "steps averaged in a line of metrics.jsonl")                 \
    X(log, level, ENUM, "info", 0, 0, "error|warn|info|debug|trace", FREE, "what is printed")                       \
    X(log, tensorboard, ENUM, "on", 0, 0, "off|on", FREE, "write run.dir/tensorboard")

#define GIDD_CONFIG_SECTIONS(S)                                                                                     \
    S(run) S(data) S(model) S(diffusion) S(loss) S(optimizer) S(training) S(checkpoint) S(eval) S(device) S(comm) S(log)
