/* SPDX-License-Identifier: Apache-2.0
 *
 * device_present NAME: 0 if this machine has the device, else 77 and the reason.
 */
#include "kernels/device.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    gidd_device *device = NULL;
    gidd_device_args args = {.name = argc > 1 ? argv[1] : "", .dtype = GIDD_F32, .threads = 1};
    if (gidd_device_open(&args, &device) != GIDD_OK) {
        (void)fprintf(stderr, "%s\n", gidd_error_last()->text);
        return 77;
    }
    char text[256];
    gidd_device_describe(device, text, sizeof text);
    (void)puts(text);
    gidd_device_close(device);
    return 0;
}
