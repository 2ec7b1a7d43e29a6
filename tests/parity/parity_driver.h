/* SPDX-License-Identifier: Apache-2.0
 *
 * What parity_main.c needs of parity_file.c and no section does.
 */
#ifndef GIDD_TESTS_PARITY_PARITY_DRIVER_H
#define GIDD_TESTS_PARITY_PARITY_DRIVER_H

#include "parity/parity.h"

/* Opens the file and reads /config into *p. CORRUPT: it is no such file. Close closes the file and
 * the device that sections have used for it. */
gidd_status parity_open(parity *p, const char *path);
void parity_close(parity *p);

/* Frees what the section has read and allocated. */
void parity_release_blocks(parity *p);

#endif
