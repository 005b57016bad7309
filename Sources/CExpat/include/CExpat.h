#ifndef AMORCE_CEXPAT_H
#define AMORCE_CEXPAT_H

#include <expat.h>

#endif
