// What the build knows and the source cannot: Swift takes no text from the command line, the C compiler does.
#ifndef AMORCE_CBUILD_H
#define AMORCE_CBUILD_H

/// The commit that was built, as `scripts/build` gives it.
const char *amorce_build_commit(void);

#endif
