/* SPDX-License-Identifier: Apache-2.0
 *
 * The lookup tables that encoding works on, made from the list of merges.
 */
#include "tokenizer/bpe_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* A plain trie (first child, next sibling), from which the double array is laid out. */
typedef struct tree_node {
    int32_t child;
    int32_t sibling;
    uint16_t label;
    uint16_t symbol;
} tree_node;

typedef struct tree {
    tree_node *nodes;
    int32_t count;
    int32_t capacity;
} tree;

typedef struct layout {
    bpe_trie_slot *slots;
    uint8_t *base_used;
    uint32_t count;    /* slots allocated */
    uint32_t first;    /* no free slot below */
    uint32_t tried[9]; /* per number of children (8: more): the last base found. Searching on
                          from there costs some slots, searching from `first` a second */
} layout;

void *gidd_bpe_allocate_table(size_t bytes)
{
    const size_t page = 2 << 20;
    size_t rounded = (bytes + page - 1) / page * page;
    void *table = aligned_alloc(page, rounded);
    if (table != NULL) {
        (void)madvise(table, rounded, MADV_HUGEPAGE);
    }
    return table;
}

static gidd_status build_pairs(gidd_bpe *bpe)
{
    uint32_t bits = 9;
    while ((INT64_C(1) << bits) < 2 * (int64_t)bpe->symbol_count) {
        bits++;
    }
    bpe->pairs = gidd_bpe_allocate_table(sizeof(*bpe->pairs) << bits);
    bpe->pair_filter = calloc((size_t)1 << (BPE_PAIR_FILTER_BITS - 6), sizeof(*bpe->pair_filter));
    if (bpe->pairs == NULL || bpe->pair_filter == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for 2^%u pairs of the tokenizer", bits);
    }
    bpe->pair_shift = 64 - bits;
    bpe->pair_mask = (UINT32_C(1) << bits) - 1;
    for (uint32_t i = 0; i <= bpe->pair_mask; i++) {
        bpe->pairs[i] = (bpe_pair_slot){.key = UINT32_MAX, .symbol = BPE_NO_SYMBOL};
    }
    for (int32_t s = BPE_BYTE_SYMBOLS; s < bpe->symbol_count; s++) {
        uint32_t key = (uint32_t)bpe->symbols[s].left << 16 | bpe->symbols[s].right;
        uint64_t hash = bpe_pair_hash(key), bit = hash >> (64 - BPE_PAIR_FILTER_BITS);
        uint32_t at = (uint32_t)(hash >> bpe->pair_shift);
        bpe->pair_filter[bit / 64] |= UINT64_C(1) << (bit % 64);
        while (bpe->pairs[at].symbol != BPE_NO_SYMBOL) {
            if (bpe->pairs[at].key == key) {
                return gidd_fail(GIDD_ERR_CORRUPT, "merge %d of the tokenizer repeats merge %d",
                                 (int)s - BPE_BYTE_SYMBOLS + 1,
                                 (int)bpe->pairs[at].symbol - BPE_BYTE_SYMBOLS + 1);
            }
            at = (at + 1) & bpe->pair_mask;
        }
        bpe->pairs[at] = (bpe_pair_slot){.key = key, .symbol = (uint32_t)s};
    }
    return GIDD_OK;
}

/* The child of `node` for `label`, added if absent; -1: no memory. */
static int32_t tree_child(tree *t, int32_t node, uint16_t label)
{
    for (int32_t child = t->nodes[node].child; child >= 0; child = t->nodes[child].sibling) {
        if (t->nodes[child].label == label) {
            return child;
        }
    }
    if (t->count == t->capacity) {
        int32_t capacity = t->capacity * 2;
        tree_node *nodes = realloc(t->nodes, (size_t)capacity * sizeof(*nodes));
        if (nodes == NULL) {
            return -1;
        }
        t->nodes = nodes;
        t->capacity = capacity;
    }
    t->nodes[t->count] = (tree_node){
        .child = -1, .sibling = t->nodes[node].child, .label = label, .symbol = BPE_NO_SYMBOL};
    t->nodes[node].child = t->count;
    return t->count++;
}

static gidd_status tree_insert(tree *t, const gidd_bpe *bpe, int32_t symbol)
{
    const uint8_t *text = bpe->text + bpe->text_at[bpe->id_of[symbol]];
    int32_t node = 0;
    for (uint32_t i = 0; i < bpe->symbols[symbol].length; i++) {
        node = tree_child(t, node, text[i]);
        if (node < 0) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for the tokenizer's trie");
        }
    }
    t->nodes[node].symbol = (uint16_t)symbol;
    return GIDD_OK;
}

static gidd_status grow(layout *l, uint32_t count)
{
    if (count <= l->count) {
        return GIDD_OK;
    }
    count += count / 2;
    bpe_trie_slot *slots = realloc(l->slots, count * sizeof(*slots));
    l->slots = slots != NULL ? slots : l->slots;
    uint8_t *used = realloc(l->base_used, count);
    l->base_used = used != NULL ? used : l->base_used;
    if (slots == NULL || used == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the tokenizer's trie");
    }
    for (uint32_t i = l->count; i < count; i++) {
        l->slots[i] = (bpe_trie_slot){.label = BPE_NO_LABEL, .symbol = BPE_NO_SYMBOL};
        l->base_used[i] = 0;
    }
    l->count = count;
    return GIDD_OK;
}

/* Lays out the children of `node` at the first base where all of them find a free slot. */
static gidd_status place_children(layout *l, const tree *t, int32_t node, uint32_t *base_p)
{
    uint32_t lowest = BPE_NO_LABEL, children = 0;
    for (int32_t c = t->nodes[node].child; c >= 0; c = t->nodes[c].sibling) {
        lowest = t->nodes[c].label < lowest ? t->nodes[c].label : lowest;
        children += children < 8;
    }
    uint32_t base = node == 0 ? BPE_ROOT_BASE : l->first - lowest;
    for (base = base < l->tried[children] ? l->tried[children] : base;; base++) {
        GIDD_TRY(grow(l, base + 256));
        int fits = !l->base_used[base];
        for (int32_t c = t->nodes[node].child; fits && c >= 0; c = t->nodes[c].sibling) {
            fits = l->slots[base + t->nodes[c].label].label == BPE_NO_LABEL;
        }
        if (fits) {
            break;
        }
    }
    l->tried[children] = base;
    l->base_used[base] = 1;
    for (int32_t c = t->nodes[node].child; c >= 0; c = t->nodes[c].sibling) {
        l->slots[base + t->nodes[c].label].label = t->nodes[c].label;
        l->slots[base + t->nodes[c].label].symbol = t->nodes[c].symbol;
    }
    while (l->first < l->count && l->slots[l->first].label != BPE_NO_LABEL) {
        l->first++;
    }
    *base_p = base;
    return GIDD_OK;
}

/* Breadth first, so that the slots of short prefixes, which every search passes, lie together. */
static gidd_status lay_out(layout *l, const tree *t)
{
    int32_t *queue = malloc((size_t)t->count * sizeof(*queue));
    uint32_t *slot_of = malloc((size_t)t->count * sizeof(*slot_of));
    gidd_status status = GIDD_OK;
    int32_t head = 0, tail = 0;
    if (queue == NULL || slot_of == NULL) {
        status = gidd_fail(GIDD_ERR_NOMEM, "no memory for the tokenizer's trie");
        goto out;
    }
    queue[tail++] = 0;
    while (head < tail) {
        int32_t node = queue[head++];
        uint32_t base = 0;
        if (t->nodes[node].child < 0) {
            continue;
        }
        GIDD_TRY_GOTO(place_children(l, t, node, &base));
        if (node != 0) {
            l->slots[slot_of[node]].base = base;
        }
        for (int32_t c = t->nodes[node].child; c >= 0; c = t->nodes[c].sibling) {
            slot_of[c] = base + t->nodes[c].label;
            queue[tail++] = c;
        }
    }
out:
    free(slot_of);
    free(queue);
    return status;
}

static void add_text(gidd_bpe *bpe, int32_t symbol)
{
    size_t length = bpe->symbols[symbol].length;
    uint64_t key[2] = {0};
    if (length > BPE_TEXT_SLOT_BYTES) {
        return;
    }
    uint8_t padded[16] = {0};
    memcpy(padded, bpe->text + bpe->text_at[bpe->id_of[symbol]], length);
    memcpy(key, padded, sizeof(padded));
    key[1] |= (uint64_t)length << 40;
    uint64_t hash = bpe_text_hash(key[0], key[1]), bit = hash >> (64 - BPE_TEXT_FILTER_BITS);
    uint32_t at = (uint32_t)(hash >> (64 - BPE_TEXT_SLOT_BITS));
    bpe->text_filter[bit / 64] |= UINT64_C(1) << (bit % 64);
    while (bpe->text_slots[at].high != 0) {
        at = (at + 1) & ((1u << BPE_TEXT_SLOT_BITS) - 1);
    }
    bpe->text_slots[at] = (bpe_text_slot){.low = key[0], .high = key[1] | (uint64_t)symbol << 48};
}

/* A symbol is produced by merging only if its two parts are and stay apart until they meet. */
static gidd_status plant(tree *t, gidd_bpe *bpe)
{
    size_t slot_bytes = sizeof(*bpe->text_slots) << BPE_TEXT_SLOT_BITS;
    uint8_t *produced = malloc((size_t)bpe->symbol_count);
    bpe->produced = produced;
    bpe->text_slots = gidd_bpe_allocate_table(slot_bytes);
    bpe->text_filter = calloc((size_t)1 << (BPE_TEXT_FILTER_BITS - 6), sizeof(*bpe->text_filter));
    if (produced == NULL || bpe->text_slots == NULL || bpe->text_filter == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the tokenizer's trie");
    }
    memset(bpe->text_slots, 0, slot_bytes);
    gidd_status status = GIDD_OK;
    for (int32_t s = 0; s < bpe->symbol_count && status == GIDD_OK; s++) {
        produced[s] =
            s < BPE_BYTE_SYMBOLS ||
            (produced[bpe->symbols[s].left] && produced[bpe->symbols[s].right] &&
             gidd_bpe_is_boundary(bpe, bpe->symbols[s].left, bpe->symbols[s].right, (uint32_t)s));
        if (produced[s]) {
            status = tree_insert(t, bpe, s);
            add_text(bpe, s);
        }
    }
    return status;
}

static void find_shorter(gidd_bpe *bpe)
{
    for (int32_t s = 0; s < bpe->symbol_count; s++) {
        const uint8_t *text = bpe->text + bpe->text_at[bpe->id_of[s]];
        uint32_t base = BPE_ROOT_BASE, found = BPE_NO_SYMBOL;
        for (uint32_t i = 0; i + 1 < bpe->symbols[s].length; i++) {
            bpe_trie_slot slot = bpe->trie[base + text[i]];
            if (slot.label != text[i]) {
                break;
            }
            found = slot.symbol != BPE_NO_SYMBOL ? slot.symbol : found;
            base = slot.base;
        }
        bpe->symbols[s].shorter = (uint16_t)found;
    }
}

gidd_status gidd_bpe_build_tables(gidd_bpe *bpe)
{
    gidd_status status = GIDD_OK;
    tree t = {.capacity = 1 << 16};
    layout l = {.first = BPE_ROOT_BASE};
    GIDD_TRY_GOTO(build_pairs(bpe));
    t.nodes = malloc((size_t)t.capacity * sizeof(*t.nodes));
    if (t.nodes == NULL) {
        status = gidd_fail(GIDD_ERR_NOMEM, "no memory for the tokenizer's trie");
        goto out;
    }
    t.nodes[t.count++] = (tree_node){.child = -1, .sibling = -1, .symbol = BPE_NO_SYMBOL};
    GIDD_TRY_GOTO(plant(&t, bpe));
    GIDD_TRY_GOTO(lay_out(&l, &t));
    bpe->trie = gidd_bpe_allocate_table(l.count * sizeof(*l.slots));
    if (bpe->trie == NULL) {
        status = gidd_fail(GIDD_ERR_NOMEM, "no memory for the tokenizer's trie");
        goto out;
    }
    memcpy(bpe->trie, l.slots, l.count * sizeof(*l.slots));
    find_shorter(bpe);
out:
    free(l.base_used);
    free(l.slots);
    free(t.nodes);
    return status;
}
