#include "CBuild.h"

#ifndef AMORCE_COMMIT
#define AMORCE_COMMIT "not recorded"
#endif

const char *amorce_build_commit(void) { return AMORCE_COMMIT; }
