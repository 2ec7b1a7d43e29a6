/* SPDX-License-Identifier: Apache-2.0
 *
 * Orders and reports of any bytes: what passes the checks is safe to decide from and to obey, and decisions
 * always make an order that passes. The input is {flags, reports of two ranks, step by step}; bit 0 of
 * the flags puts the reports' magic and step right, else hardly one would be taken. The first bytes serve as an order, too.
 */
#include "fuzz/fuzz.h"

#include "coordinator/plan.h"

#include <string.h>

enum { RANKS = 2, STEPS_MAX = 16 };

static void obey(const uint8_t *data, size_t size, uint64_t magic)
{
    gidd_order order;
    memset(&order, 0, sizeof order);
    memcpy(&order, data, size < sizeof order ? size : sizeof order);
    order.magic = magic;
    if (gidd_order_check(&order, order.step) == GIDD_OK) {
        FUZZ_CHECK(gidd_stop_text((gidd_stop_reason)order.reason) != NULL);
        FUZZ_CHECK(gidd_stop_exit_code((gidd_stop_reason)order.reason) >= 0);
    }
}

static void decide(gidd_plan *plan, const gidd_report *reports, int64_t step)
{
    gidd_order       order = {.magic = GIDD_ORDER_MAGIC, .step = step + 2};
    gidd_plan_moment moment = {.elapsed_ns = step * 1000000, .left_ns = INT64_MAX};
    gidd_plan_observe(plan, reports, RANKS, step, moment.elapsed_ns);
    gidd_plan_order(plan, &moment, &order);
    FUZZ_CHECK(gidd_order_check(&order, step + 2) == GIDD_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static gidd_config config;
    gidd_plan          plan;
    gidd_report        reports[RANKS];
    if (size == 0) {
        return 0;
    }
    int trusted = data[0] & 1;
    obey(data + 1, size - 1, trusted ? GIDD_ORDER_MAGIC : 0);
    gidd_config_init(&config);
    gidd_plan_init(&plan, &config, 0);
    data++;
    size--;
    for (int64_t step = 0; step < STEPS_MAX && size >= sizeof reports; step++) {
        gidd_status status = GIDD_OK;
        memcpy(reports, data, sizeof reports);
        for (int rank = 0; rank < RANKS; rank++) {
            if (trusted) {
                reports[rank].magic = GIDD_REPORT_MAGIC;
                reports[rank].step = step;
            }
            status = status == GIDD_OK ? gidd_report_check(&reports[rank], step, rank) : status;
        }
        if (status == GIDD_OK) {
            decide(&plan, reports, step);
        }
        data += sizeof reports;
        size -= sizeof reports;
    }
    return 0;
}
