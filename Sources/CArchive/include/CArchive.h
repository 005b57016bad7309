// libarchive needs no shim: its functions are not variadic, but for archive_set_error, which nothing here calls.
#ifndef AMORCE_CARCHIVE_H
#define AMORCE_CARCHIVE_H

#include <archive.h>
#include <archive_entry.h>

#endif
