# SPDX-License-Identifier: Apache-2.0
#
# compare_runs.awk CPU CONTROL DEVICE: the losses of three metrics.jsonl, step by step. CPU and CONTROL are the same
# run on the CPU in fp32, CONTROL with other micro-batches: the same sums in another order. How far these two drift
# apart is what rounding in another order makes of this very run, and nothing else can be wrong between them. A device
# that is right differs from the CPU in the order of its sums and in elementary functions that are good to a few units
# in the last place where the CPU's are good to about one. So up to step k its relative difference may be
#
#     16 x the largest difference of the control up to step k, plus 64 units of fp32 (3.8e-6)
#
# the factor for the elementary functions, the constant for steps at which the control happens to agree.
function number(text, key,    at) {
    at = index(text, "\"" key "\":")
    return at ? substr(text, at + length(key) + 3) + 0 : "none"
}
function difference(a, b) {
    return (a > b ? a - b : b - a) / (a > 0 ? a : 1)
}
FNR == 1 { file++ }
index($0, "\"loss\":") {
    step = number($0, "step")
    if (file == 1) { steps[++count] = step }
    loss[file, step] = number($0, "loss")
}
END {
    for (i = 1; i <= count; i++) {
        step = steps[i]
        for (f = 2; f <= 3; f++) {
            if (!((f, step) in loss)) {
                print "step " step " is missing in file " f
                exit 1
            }
        }
        control = difference(loss[1, step], loss[2, step])
        device = difference(loss[1, step], loss[3, step])
        drift = control > drift ? control : drift
        worst = device > worst ? device : worst
        bound = 16 * drift + 3.8e-6
        if (!(device <= bound)) {
            printf "step %d: the device's loss differs by %.3g, bound %.3g\n", step, device, bound
            bad = 1
        }
    }
    printf "%d steps, loss %.4f to %.4f: largest difference %.3g, of the control %.3g, bound %.3g\n", count, \
        loss[1, steps[1]], loss[1, steps[count]], worst, drift, bound
    exit bad || count == 0
}
