// Nothing to call: this module exists for the linker (see CUnavailable.c).
