#ifndef AMORCE_CZSTD_H
#define AMORCE_CZSTD_H

#include <zstd.h>

// The parameter is of the part of zstd.h that is for static linking alone, whose functions Swift need not see. libzstd has had it since
// 1.4.5, and where it does not know it, checksums are compared.
void amorce_zstd_ignore_checksums(ZSTD_DCtx *context);

#endif
