// libzstd needs no shim: its functions are plain ones.
#ifndef AMORCE_CZSTD_H
#define AMORCE_CZSTD_H

#include <zstd.h>

#endif
