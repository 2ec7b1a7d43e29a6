/* SPDX-License-Identifier: Apache-2.0 */
#include "io/data_set.h"

#include "base/config.h"
#include "io/mix_order.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct gidd_data_set {
    gidd_data_info info;
    gidd_shard_set *shards[GIDD_LOADER_PARTS_MAX]; // [info.source_count]
    gidd_loader_part parts[GIDD_LOADER_PARTS_MAX];
    gidd_ranges left_out[GIDD_LOADER_PARTS_MAX]; // what parts[k].source.left_out points to
};

static gidd_status add_source(gidd_data_set *data, const char *dir, double weight)
{
    gidd_shard_set *set = NULL;
    int64_t k = data->info.source_count;
    if (k == GIDD_LOADER_PARTS_MAX) {
        return gidd_fail(GIDD_ERR_CONFIG, "data.mix: more than %d sources", GIDD_LOADER_PARTS_MAX);
    }
    GIDD_TRY(gidd_shard_set_open(dir, &set));
    const gidd_shard_info *info = gidd_shard_set_info(set);
    data->shards[k] = set;
    data->parts[k] = (gidd_loader_part){.source = gidd_source_of_shards(set), .weight = weight};
    data->info.source_count++;
    data->info.document_count += info->document_count;
    data->info.token_count += info->token_count;
    data->info.shard_count += info->shard_count;
    data->info.valid_documents += info->valid_documents;
    if (k == 0) {
        data->info.vocab_size = info->vocab_size;
        memcpy(data->info.tokenizer_digest, info->tokenizer_digest, GIDD_DIGEST_SIZE);
        memcpy(data->info.data_digest, info->data_digest, GIDD_DIGEST_SIZE);
    } else if (strcmp(data->info.tokenizer_digest, info->tokenizer_digest) != 0) {
        return gidd_fail(GIDD_ERR_CONFIG, "data.mix: %s was made with another tokenizer (%s) than the first source (%s)",
                         dir, info->tokenizer_digest, data->info.tokenizer_digest);
    }
    return GIDD_OK;
}

// "FOLDER:WEIGHT"; the weight follows the last colon.
static gidd_status add_item(gidd_data_set *data, char *item)
{
    char *end = NULL, *colon = strrchr(item, ':');
    double weight = colon != NULL ? strtod(colon + 1, &end) : 0.0;
    if (colon == NULL || colon == item || end == colon + 1 || *end != '\0') {
        return gidd_fail(GIDD_ERR_CONFIG, "data.mix: '%s' is not FOLDER:WEIGHT", item);
    }
    *colon = '\0';
    return add_source(data, item, weight);
}

static gidd_status digest_mix(gidd_data_set *data)
{
    gidd_mix_order order;
    double weights[GIDD_LOADER_PARTS_MAX];
    char line[128];
    for (int64_t k = 0; k < data->info.source_count; k++) {
        weights[k] = data->parts[k].weight;
    }
    GIDD_TRY(gidd_mix_order_init(&order, 0, weights, data->info.source_count));
    gidd_digest *digest = gidd_digest_create();
    if (digest == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a digest");
    }
    gidd_digest_update(digest, "gidd-mix 1\n", strlen("gidd-mix 1\n"));
    for (int64_t k = 0; k < data->info.source_count; k++) {
        const gidd_shard_info *info = gidd_shard_set_info(data->shards[k]);
        int used = snprintf(line, sizeof line, "%s %lld %d\n", info->data_digest, (long long)info->valid_documents,
                            gidd_mix_order_quota(&order, k));
        gidd_digest_update(digest, line, (size_t)used);
    }
    gidd_digest_text(digest, data->info.data_digest);
    gidd_digest_destroy(digest);
    return GIDD_OK;
}

static gidd_status open_sources(gidd_data_set *data, const char *dir, const char *mix)
{
    char item[GIDD_CONFIG_TEXT_MAX];
    if (mix[0] == '\0') {
        return add_source(data, dir, 1.0);
    }
    for (int k = 0; gidd_config_list_item(mix, k, item, sizeof item); k++) {
        GIDD_TRY(add_item(data, item));
    }
    return digest_mix(data);
}

gidd_status gidd_data_set_open(const char *dir, const char *mix, gidd_data_set **data_p)
{
    gidd_data_set *data = calloc(1, sizeof *data);
    if (data == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to open %s", dir);
    }
    gidd_status status = open_sources(data, dir, mix);
    if (status != GIDD_OK) {
        gidd_data_set_close(data);
        return status;
    }
    *data_p = data;
    return GIDD_OK;
}

void gidd_data_set_close(gidd_data_set *data)
{
    for (int64_t k = 0; data != NULL && k < data->info.source_count; k++) {
        gidd_shard_set_close(data->shards[k]);
        gidd_ranges_release(&data->left_out[k]);
    }
    free(data);
}

const gidd_data_info *gidd_data_set_info(const gidd_data_set *data)
{
    return &data->info;
}

gidd_status gidd_data_set_verify(gidd_data_set *data, int64_t shard, gidd_ranges *damaged)
{
    for (int64_t k = 0; k < data->info.source_count; k++) {
        int64_t count = gidd_shard_set_info(data->shards[k])->shard_count;
        if (shard >= 0 && shard < count) {
            return gidd_shard_set_verify(data->shards[k], shard, damaged != NULL ? &damaged[k] : NULL);
        }
        shard -= count;
    }
    return gidd_fail(GIDD_ERR_ARG, "there are %lld shards", (long long)data->info.shard_count);
}

gidd_status gidd_data_set_stamp(const gidd_data_set *data, char stamp[GIDD_DIGEST_SIZE])
{
    gidd_status status = GIDD_OK;
    gidd_digest *digest = gidd_digest_create();
    if (digest == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a digest");
    }
    gidd_digest_update(digest, data->info.data_digest, strlen(data->info.data_digest));
    for (int64_t k = 0; status == GIDD_OK && k < data->info.source_count; k++) {
        status = gidd_shard_set_stamp(data->shards[k], digest);
    }
    gidd_digest_text(digest, stamp);
    gidd_digest_destroy(digest);
    return status;
}

void gidd_data_set_leave_out(gidd_data_set *data, int64_t source, gidd_ranges *documents)
{
    GIDD_ASSERT(source >= 0 && source < data->info.source_count);
    gidd_ranges_release(&data->left_out[source]);
    data->left_out[source] = *documents;
    *documents = (gidd_ranges){0};
    gidd_ranges_settle(&data->left_out[source]);
    data->parts[source].source.left_out = &data->left_out[source];
}

const gidd_loader_part *gidd_data_set_parts(const gidd_data_set *data)
{
    return data->parts;
}
