/* SPDX-License-Identifier: Apache-2.0
 *
 * Private to export: the tokenizer's files as Hugging Face's GPT2Tokenizer reads them.
 */
#ifndef GIDD_WORKER_EXPORT_TOKENIZER_H
#define GIDD_WORKER_EXPORT_TOKENIZER_H

#include "diffusion/vocab.h"
#include "base/status.h"

/* Writes into `folder`: vocab.json and merges.txt, the bytes of from/encoder.json and from/vocab.bpe; the added
 * tokens [PAD] (if it has an id of its own) and [MASK]; what is special. `eos` is the id of <|endoftext|>, -1: none;
 * `context` the longest text. Local. */
gidd_status gidd_export_tokenizer(const char *folder, const char *from, int32_t eos, const gidd_vocab *vocab,
                                  int64_t context);

/* Removes a folder of files after a failed export; keeps the story of the failure. Local. */
void gidd_export_remove(const char *folder);

#endif
