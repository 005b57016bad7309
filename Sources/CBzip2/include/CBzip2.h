// libbz2 needs no shim; its header wants stdio.h only for functions that nothing here calls.
#ifndef AMORCE_CBZIP2_H
#define AMORCE_CBZIP2_H

#include <bzlib.h>

#endif
