#include "CIsal.h"

#include <isa-l.h>
#include <stdlib.h>

struct amorce_gunzip {
    struct inflate_state state;
    // It outlives the calls: isal_inflate reads a header only in one piece, isal_read_gzip_header goes on where it stopped.
    struct isal_gzip_header header;
};

amorce_gunzip *amorce_gunzip_create(void) { return calloc(1, sizeof(amorce_gunzip)); }

void amorce_gunzip_destroy(amorce_gunzip *gunzip) { free(gunzip); }

void amorce_gunzip_begin(amorce_gunzip *gunzip) {
    isal_inflate_init(&gunzip->state);
    // The trailer is read and checked behind the data.
    gunzip->state.crc_flag = ISAL_GZIP;
    // No room for the name, the comment and the extra field: they are skipped.
    isal_gzip_header_init(&gunzip->header);
}

int amorce_gunzip_header(amorce_gunzip *gunzip, const uint8_t **input, uint32_t *input_size, uint32_t *flags) {
    struct inflate_state *state = &gunzip->state;
    state->next_in = (uint8_t *)*input;
    state->avail_in = *input_size;
    int code = isal_read_gzip_header(state, &gunzip->header);
    *input = state->next_in;
    *input_size = state->avail_in;
    *flags = gunzip->header.flags;
    return code;
}

int amorce_gunzip_inflate(
    amorce_gunzip *gunzip, const uint8_t **input, uint32_t *input_size, uint8_t **output, uint32_t *output_size) {
    struct inflate_state *state = &gunzip->state;
    state->next_in = (uint8_t *)*input;
    state->avail_in = *input_size;
    state->next_out = *output;
    state->avail_out = *output_size;
    int code = isal_inflate(state);
    *input = state->next_in;
    *input_size = state->avail_in;
    *output = state->next_out;
    *output_size = state->avail_out;
    if (code != ISAL_DECOMP_OK) return code;
    return state->block_state == ISAL_BLOCK_FINISH ? AMORCE_GUNZIP_DONE : AMORCE_GUNZIP_MORE;
}

#define TEXT(value) #value
#define VERSION(major, minor, patch) TEXT(major) "." TEXT(minor) "." TEXT(patch)
const char *amorce_isal_version(void) { return VERSION(ISAL_MAJOR_VERSION, ISAL_MINOR_VERSION, ISAL_PATCH_VERSION); }
