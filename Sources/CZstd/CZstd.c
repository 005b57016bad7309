#define ZSTD_STATIC_LINKING_ONLY
#include "CZstd.h"

void amorce_zstd_ignore_checksums(ZSTD_DCtx *context) {
    ZSTD_DCtx_setParameter(context, ZSTD_d_forceIgnoreChecksum, ZSTD_d_ignoreChecksum);
}
