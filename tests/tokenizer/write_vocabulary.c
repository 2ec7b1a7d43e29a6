/* SPDX-License-Identifier: Apache-2.0
 *
 * write_vocabulary DIR: a small random vocabulary for the tests of programs.
 */
#include "bpe_reference.h"

int main(int argc, char **argv)
{
    if (argc != 2) {
        return 64;
    }
    bpe_reference *reference = bpe_reference_create(1);
    bpe_reference_write(reference, argv[1]);
    bpe_reference_destroy(reference);
    return 0;
}
