// ISA-L's state holds arrays of up to 65,824 elements, which Swift would import as tuples: it stays behind a pointer.
#ifndef AMORCE_CISAL_H
#define AMORCE_CISAL_H

#include <stdint.h>

typedef struct amorce_gunzip amorce_gunzip;

/// What the functions below return besides ISA-L's errors, which are negative (ISAL_INVALID_BLOCK and following).
#define AMORCE_GUNZIP_DONE 0
#define AMORCE_GUNZIP_MORE 1

/// Null when there is no memory.
amorce_gunzip *amorce_gunzip_create(void);
void amorce_gunzip_destroy(amorce_gunzip *gunzip);

/// Makes ready for the header of the next member.
void amorce_gunzip_begin(amorce_gunzip *gunzip);

/// Reads the member's header (RFC 1952, section 2.3), in as many pieces as it comes: done, more, or an error. Both functions
/// take from the input what they use. `flags` is FLG when the header is done.
int amorce_gunzip_header(amorce_gunzip *gunzip, const uint8_t **input, uint32_t *input_size, uint32_t *flags);

/// Done: the member's end was reached, and its CRC-32 and length are those of its contents.
int amorce_gunzip_inflate(
    amorce_gunzip *gunzip, const uint8_t **input, uint32_t *input_size, uint8_t **output, uint32_t *output_size);

/// The version whose headers this was built with; the library does not tell its own.
const char *amorce_isal_version(void);

#endif
