// The macros of liblzma that Swift does not import.
#ifndef AMORCE_CLZMA_H
#define AMORCE_CLZMA_H

#include <lzma.h>

// LZMA_TELL_NO_CHECK: a stream without a check is announced, since nothing vouches for its bytes.
// LZMA_TELL_UNSUPPORTED_CHECK: a check of a kind that this library cannot compute is announced, in place of being skipped.
static inline lzma_ret amorce_lzma_start(lzma_stream *stream, uint64_t memory_limit) {
    return lzma_stream_decoder(stream, memory_limit, LZMA_TELL_NO_CHECK | LZMA_TELL_UNSUPPORTED_CHECK);
}

#endif
