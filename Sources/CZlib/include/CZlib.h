// inflateInit2 is a macro that passes the version and the size of the structure; Swift does not import it.
#ifndef AMORCE_CZLIB_H
#define AMORCE_CZLIB_H

#include <zlib.h>

static inline int amorce_inflate_init(z_stream *stream, int window_bits) { return inflateInit2(stream, window_bits); }

#endif
